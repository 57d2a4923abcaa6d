//! Errors about arguments, without the values of arguments.
//!
//! A key, passphrase or PIN given where a file's name belongs must not be repeated, neither by clap nor
//! by a command. So [`explain`] writes clap's errors anew from flag names, possible values and usage, and
//! [`mask`] takes out of every other error what was given as a value, unless it is of a harmless form:
//! a path, an address, a host, a word of a few characters.

use std::borrow::Cow;
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::telemetry::redact::has_secret;

/// What stands in place of a value.
const HIDDEN: &str = "(value not shown)";
/// The longest value that is shown whatever it is, in bytes.
const SHORT: usize = 3;
/// The longest name that is shown though no flag or command has it.
const LONGEST_NAME: usize = 24;
/// Flags whose values identify, and are shown once they were accepted.
const IDENTIFYING: [&str; 8] = [
    "--client-id",
    "--method",
    "--uri",
    "--time",
    "--key-version",
    "--bits",
    "--namespace",
    "--life",
];
/// The variables of the environment that stand for arguments.
const VARIABLES: [&str; 3] = [
    "COUNTERSIGN_CONFIG",
    "COUNTERSIGN_LOG",
    "COUNTERSIGN_LOG_FORMAT",
];
/// What files of keys, certificates and configuration are called.
const EXTENSIONS: [&str; 15] = [
    "pem", "key", "der", "crt", "cer", "pub", "p12", "jks", "txt", "yaml", "yml", "json", "conf",
    "so", "sock",
];

/// The values of this process's arguments that are not shown.
static VALUES: OnceLock<Vec<Hidden>> = OnceLock::new();

/// A value that is not shown, in one of the forms in which it may be quoted.
#[derive(Clone, Debug)]
struct Hidden {
    form: String,
    /// What stands in its place.
    label: String,
    /// Whether nobody names a file like this.
    is_unusual: bool,
}

/// Notes which values must not be repeated; the first of `arguments` is the program's name.
pub(super) fn remember(arguments: &[OsString]) {
    let mut all = values(arguments);
    for name in VARIABLES {
        if let Some(value) = super::variable(name) {
            let label = format!("(the value of {name}, not shown)");
            all.extend(forms(&value.to_string_lossy(), &label));
        }
    }
    // A second time, in a process of tests, changes nothing.
    let _already = VALUES.set(all);
}

/// A line about a problem without those values.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    mask_values(text, VALUES.get().into_iter().flatten())
}

/// A line of result that names files, without those of the values after which nobody names one.
pub(super) fn mask_unusual(text: &str) -> Cow<'_, str> {
    let all = VALUES.get().into_iter().flatten();
    mask_values(text, all.filter(|value| value.is_unusual))
}

fn mask_values<'a, 'b>(text: &'a str, values: impl Iterator<Item = &'b Hidden>) -> Cow<'a, str> {
    let mut masked = Cow::Borrowed(text);
    for value in values {
        if masked.contains(value.form.as_str()) {
            masked = Cow::Owned(without(&masked, value));
        }
    }
    masked
}

/// The text without a value. A plain word is taken out only where it stands alone.
fn without(text: &str, value: &Hidden) -> String {
    let Hidden { form, label, .. } = value;
    if !form.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return text.replace(form, label);
    }
    let (mut clean, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once(form) {
        let joins = |other: Option<char>| other.is_some_and(char::is_alphanumeric);
        let stands_alone = !joins(before.chars().next_back()) && !joins(behind.chars().next());
        clean.push_str(before);
        clean.push_str(if stands_alone { label } else { form });
        rest = behind;
    }
    clean + rest
}

/// The values among arguments that are not shown, the longest first.
fn values(arguments: &[OsString]) -> Vec<Hidden> {
    let mut found = Vec::new();
    let mut flag = String::new();
    for argument in arguments.iter().skip(1) {
        let text = argument.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if is_flag(name) => (name, value),
            _ => (flag.as_str(), &*text),
        };
        let identifies = IDENTIFYING.contains(&name) && !has_secret(value);
        if !is_flag(&text) && !identifies {
            let label = match name {
                "" => HIDDEN.to_owned(),
                name => format!("(the value of {name}, not shown)"),
            };
            found.extend(forms(value, &label));
        }
        flag = if is_flag(&text) {
            text.into_owned()
        } else {
            String::new()
        };
    }
    found.sort_by_key(|value| std::cmp::Reverse(value.form.len()));
    found
}

/// The forms of a value, and of its parts, that are not shown.
fn forms(value: &str, label: &str) -> Vec<Hidden> {
    // NAME=VALUE, and lists.
    let behind = value.split_once('=').map(|(_, behind)| behind);
    let parts = [value].into_iter().chain(behind).chain(value.split(','));
    let parts = parts.filter(|part| !is_harmless(part));
    let forms = parts.flat_map(|part| {
        let escaped = part.escape_debug().to_string();
        [part.to_owned(), escaped, part.trim().to_owned()]
    });
    let hidden = forms.filter(|form| form.len() > SHORT).map(|form| Hidden {
        is_unusual: has_secret(&form) || !form.bytes().all(is_usual),
        form,
        label: label.to_owned(),
    });
    hidden.collect()
}

/// Whether a character is common in names of files.
fn is_usual(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._/~+-".contains(&byte)
}

/// Whether a value can be shown: it has the form of what belongs into arguments, and not of a secret.
fn is_harmless(value: &str) -> bool {
    if value.len() <= SHORT {
        return true;
    }
    if has_secret(value) || value.contains("-----") || value.contains('@') {
        return false;
    }
    value.parse::<IpAddr>().is_ok()
        || value.parse::<SocketAddr>().is_ok()
        || is_host(value)
        || is_path(value)
        || super::is_known(value)
}

/// Whether it is like `open-sea.alipayplus.com`, `*.a.example`, `sidecar:18441` or `localhost:`.
fn is_host(value: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*.".contains(&byte);
    let (host, has_port) = match value.split_once(':') {
        Some((host, port)) if port.is_empty() || is_small_number(port) => (host, true),
        _ => (value, false),
    };
    (has_port || host.contains('.')) && host.bytes().all(fits)
}

/// Whether it is a number as long as a port at the most.
fn is_small_number(value: &str) -> bool {
    value.len() <= 5 && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it is a path or a URL: there, with a folder, or of a known extension, and of no segment that
/// looks like random characters.
fn is_path(value: &str) -> bool {
    let path = Path::new(value);
    if path.symlink_metadata().is_ok() {
        return true;
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_known = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
    let is_random = |segment: &str| {
        let any = |class: fn(&u8) -> bool| segment.as_bytes().iter().any(class);
        segment.len() >= 20
            && any(u8::is_ascii_uppercase)
            && any(u8::is_ascii_lowercase)
            && any(u8::is_ascii_digit)
    };
    (is_known || value.contains('/')) && !value.split(['/', '.']).any(is_random)
}

/// Whether it is written like a flag.
fn is_flag(text: &str) -> bool {
    let name = text.strip_prefix("--").unwrap_or_default();
    name.starts_with(|first: char| first.is_ascii_lowercase()) && is_name(name)
        || matches!(text.as_bytes(), [b'-', letter] if letter.is_ascii_alphabetic())
}

/// Whether it is like the name of a flag. No secret is expected to be, and a misspelled one must be shown.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What is wrong with the arguments, and how they are written.
pub(super) fn explain(error: &Error) -> String {
    let Some(problem) = problem(error) else {
        // Of the other kinds, clap quotes flags and numbers alone.
        return mask(error.render().to_string().trim_end()).into_owned();
    };
    let mut text = format!("error: {problem}");
    for (kind, before) in [
        (ContextKind::ValidValue, "possible values: "),
        (ContextKind::SuggestedArg, "a similar argument: "),
        (ContextKind::SuggestedSubcommand, "a similar command: "),
        (ContextKind::SuggestedValue, "a similar value: "),
    ] {
        let known = context(error, kind);
        if !known.is_empty() {
            let _infallible = write!(text, "\n  {before}{known}");
        }
    }
    if let Some(usage) = error.get(ContextKind::Usage) {
        let _infallible = write!(text, "\n\n{usage}");
    }
    text + "\n\nFor more information, try '--help'."
}

/// The first line, for the kinds of error in which clap quotes what was given.
fn problem(error: &Error) -> Option<String> {
    let argument = context(error, ContextKind::InvalidArg);
    let value = context(error, ContextKind::InvalidValue);
    Some(match error.kind() {
        ErrorKind::UnknownArgument if is_flag(&argument) => {
            format!("unexpected argument '{argument}'")
        }
        ErrorKind::UnknownArgument => "unexpected argument (not shown: it is no flag, and may be a \
                                       secret); a value that begins with '-' is written --flag=VALUE"
            .to_owned(),
        ErrorKind::InvalidSubcommand => {
            let name = context(error, ContextKind::InvalidSubcommand);
            let similar = !context(error, ContextKind::SuggestedSubcommand).is_empty();
            let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase());
            let shown = if similar && is_word {
                format!("'{name}'")
            } else {
                "(not shown: it is like no command, and may be a secret)".to_owned()
            };
            format!("unrecognized subcommand {shown}")
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("a value is required for '{argument}' but none was supplied")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::TooManyValues => {
            let reason = error.source().map(ToString::to_string);
            let reason = reason.map(|reason| reason_without(&reason, &value));
            let reason = reason.map(|reason| format!(": {reason}"));
            let shown = if fits_a_type(&value) {
                format!("'{value}'")
            } else {
                HIDDEN.to_owned()
            };
            let reason = reason.unwrap_or_default();
            format!("invalid value {shown} for '{argument}'{reason}")
        }
        _ => return None,
    })
}

/// Whether the value of a flag that takes no file can be shown: numbers as long as a port, too.
fn fits_a_type(value: &str) -> bool {
    value
        .split(',')
        .all(|part| is_small_number(part) || is_harmless(part))
}

/// Why a value is refused, without the value and its parts.
fn reason_without(reason: &str, value: &str) -> String {
    if fits_a_type(value) {
        return reason.to_owned();
    }
    let argument = [OsString::new(), OsString::from(value)];
    let masked = mask_values(reason, values(&argument).iter()).into_owned();
    let characters: Vec<char> = value.chars().collect();
    let mut windows = characters.windows(8).map(String::from_iter);
    if windows.any(|part| masked.contains(&part)) {
        "it cannot be understood".to_owned()
    } else {
        masked
    }
}

fn context(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}
