//! Every way a message can fail to be read in one way only.
//!
//! The one table of them: metrics take their label from it, answers their status and text. A text
//! follows "the request" or "the answer" and quotes nothing of it.

use ::http::StatusCode;

macro_rules! malformed {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $status:ident, $text:literal;)*) => {
        /// Why a message is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Malformed {
            $($(#[$doc])* $name,)*
        }

        impl Malformed {
            /// Every reason.
            pub const ALL: &'static [Malformed] = &[$(Malformed::$name,)*];

            /// The name in metrics.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The status the sender of a request gets.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What is wrong with the message, to follow its name.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

malformed! {
    /// LF without CR before it (RFC 9112 section 2.2).
    BareLf = "bare_lf", BAD_REQUEST, "has a line that ends in LF without CR";
    /// CR without LF behind it (RFC 9112 section 2.2).
    BareCr = "bare_cr", BAD_REQUEST, "has a CR that ends no line";
    /// Anything below the blank but the tab, or DEL (RFC 9110 section 5.5).
    ControlCharacter = "control_character", BAD_REQUEST, "has a control character in a line";
    /// A line that begins with a blank: obs-fold, or white space before the first field (RFC 9112
    /// sections 2.2 and 5.2).
    FoldedLine = "folded_line", BAD_REQUEST, "has a header line that begins with a blank";
    /// A header line that is none.
    FieldWithoutColon = "field_without_colon", BAD_REQUEST, "has a header line without a colon";
    /// A field's name is empty or no token (RFC 9110 section 5.1).
    FieldName = "field_name", BAD_REQUEST, "has a header whose name is none";
    /// White space between a field's name and the colon (RFC 9112 section 5.1).
    BlankBeforeColon = "blank_before_colon", BAD_REQUEST, "has a blank before a header's colon";
    /// More than one empty line or two before the request line (RFC 9112 section 2.2).
    EmptyLines = "empty_lines", BAD_REQUEST, "begins with too many empty lines";
    /// Not method, target and version with one blank between each (RFC 9112 section 3).
    RequestLine = "request_line", BAD_REQUEST,
        "does not begin with method, target and version, one blank between each";
    /// The method is no token (RFC 9112 section 3.1).
    Method = "method", BAD_REQUEST, "has a method that is none";
    /// None of the four forms, or not one for the method (RFC 9112 section 3.2).
    TargetForm = "target_form", BAD_REQUEST, "has a target of none of the forms its method allows";
    /// A character that must be encoded (RFC 3986 section 2).
    TargetCharacter = "target_character", BAD_REQUEST,
        "has a character in its target that must be percent-encoded";
    /// A user name or password in the target (RFC 9110 section 4.2.4).
    TargetUserInfo = "target_user_info", BAD_REQUEST, "has user info in its target";
    /// A fragment in the target, which no form has (RFC 9112 section 3.2).
    TargetFragment = "target_fragment", BAD_REQUEST, "has a fragment in its target";
    /// No version at all, or not written as it must be (RFC 9112 section 2.3).
    Version = "version", BAD_REQUEST, "names no HTTP version";
    /// Another version than 1.0 and 1.1, or another protocol's opening (RFC 9110 section 15.6.6).
    VersionUnsupported = "version_unsupported", HTTP_VERSION_NOT_SUPPORTED,
        "is of a version other than HTTP/1.1 and HTTP/1.0";
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    HostMissing = "host_missing", BAD_REQUEST, "has no Host field";
    /// Two `Host` fields (RFC 9112 section 3.2).
    HostRepeated = "host_repeated", BAD_REQUEST, "has two Host fields";
    /// `Host` is no host with an optional port (RFC 9112 section 3.2).
    HostInvalid = "host_invalid", BAD_REQUEST, "names a host that is none";
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.1).
    LengthAndCoding = "length_and_coding", BAD_REQUEST,
        "says in two ways where it ends: Content-Length and Transfer-Encoding";
    /// Two `Content-Length` fields, also equal ones (RFC 9112 section 6.3).
    LengthRepeated = "length_repeated", BAD_REQUEST,
        "says in two ways where it ends: two Content-Length fields";
    /// `Content-Length` is no plain number below 2^63 (RFC 9110 section 8.6).
    LengthInvalid = "length_invalid", BAD_REQUEST, "has a Content-Length that is no plain number";
    /// Two `Transfer-Encoding` fields.
    CodingRepeated = "coding_repeated", BAD_REQUEST,
        "says in two ways where it ends: two Transfer-Encoding fields";
    /// `chunked` is not the one last coding (RFC 9112 section 6.3).
    CodingInvalid = "coding_invalid", BAD_REQUEST, "has a Transfer-Encoding that is not chunked";
    /// Other codings before `chunked` (RFC 9112 section 6.1).
    CodingUnknown = "coding_unknown", NOT_IMPLEMENTED,
        "has a Transfer-Encoding with more than chunked";
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 section 6.1).
    CodingInHttp10 = "coding_in_http_1_0", BAD_REQUEST, "has a Transfer-Encoding in HTTP/1.0";
    /// `Expect` with more than `100-continue` (RFC 9110 section 10.1.1).
    Expectation = "expectation", EXPECTATION_FAILED, "expects something else than 100-continue";
    /// The request line is over its limit (RFC 9112 section 3).
    RequestLineTooLong = "request_line_too_long", URI_TOO_LONG, "has a target that is too long";
    /// The head is over its limit (RFC 6585 section 5).
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "has a head that is too large";
    /// The head has too many fields (RFC 6585 section 5).
    TooManyFields = "too_many_fields", REQUEST_HEADER_FIELDS_TOO_LARGE, "has too many headers";
    /// A chunk's size is no hexadecimal number below 2^63 (RFC 9112 section 7.1).
    ChunkSize = "chunk_size", BAD_REQUEST, "has a chunk whose size is no number";
    /// A chunk's data does not end where its size says (RFC 9112 section 7.1).
    ChunkEnd = "chunk_end", BAD_REQUEST, "has a chunk that does not end where it should";
    /// A chunk extension is none (RFC 9112 section 7.1.1).
    ChunkExtension = "chunk_extension", BAD_REQUEST, "has a chunk extension that is none";
    /// Chunk extensions over their limit (RFC 9112 section 7.1.1).
    ChunkExtensionsTooLong = "chunk_extensions_too_long", BAD_REQUEST,
        "has chunk extensions that are too long";
    /// A trailer that must stand in the head (RFC 9110 section 6.5.1).
    TrailerForbidden = "trailer_forbidden", BAD_REQUEST,
        "has a header behind its body that must stand before it";
    /// Trailers over their limit.
    TrailersTooLarge = "trailers_too_large", BAD_REQUEST, "has too much behind its body";
    /// Hyper saw a request where this reader saw none. Never seen; it would be a defect of one of both.
    Disagreement = "disagreement", BAD_REQUEST, "is understood in two ways";
    /// Not version, status and reason (RFC 9112 section 4).
    StatusLine = "status_line", BAD_GATEWAY, "does not begin with version and status";
    /// Bytes of an answer before anything was asked, or behind one.
    Unasked = "unasked", BAD_GATEWAY, "came before anything was asked for";
    /// A 101 that was not asked for (RFC 9110 section 7.8).
    SwitchedUnasked = "switched_unasked", BAD_GATEWAY, "switches protocols unasked";
    /// Too many interim answers.
    TooManyInterim = "too_many_interim", BAD_GATEWAY, "has too many interim answers before it";
    /// A body where the status allows none (RFC 9112 section 6.3).
    BodyForbidden = "body_forbidden", BAD_GATEWAY, "has a body that its status does not allow";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_reasons_share_a_label() {
        let labels: HashSet<_> = Malformed::ALL.iter().map(|one| one.label()).collect();
        assert_eq!(labels.len(), Malformed::ALL.len());
    }
}
