//! Requests that two readers could understand differently, as bytes, with the reason each is refused for.
//!
//! `{host}` stands for what `Host` says at the entrance where it is tried.

/// A request of that beginning and further lines, with an empty line behind.
fn head(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: {{host}}\r\n{fields}\r\n")
}

/// A POST with these further lines and what comes behind its head.
fn post(fields: &str, rest: &str) -> String {
    head("POST /p HTTP/1.1", fields) + rest
}

/// A POST in chunks.
fn chunked(rest: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", rest)
}

/// Reason, status, and the bytes.
pub type Case = (&'static str, u16, String);

/// What is malformed in its first piece already.
pub fn cases() -> Vec<Case> {
    let mut cases = lines();
    cases.extend(fields());
    cases.extend(request_lines());
    cases.extend(lengths());
    cases.extend(codings());
    cases.extend(chunks());
    cases
}

fn lines() -> Vec<Case> {
    let get = |rest: &str| format!("GET / HTTP/1.1{rest}");
    vec![
        ("bare_lf", 400, get("\nHost: {host}\r\n\r\n")),
        ("bare_lf", 400, get("\r\nHost: {host}\n\r\n")),
        ("bare_lf", 400, get("\r\nHost: {host}\r\nA: b\n\n")),
        ("bare_lf", 400, get("\r\nHost: {host}\r\n\n")),
        (
            "bare_lf",
            400,
            get("\r\nHost: {host}\r\nA: b\nContent-Length: 9\r\n\r\n"),
        ),
        (
            "bare_lf",
            400,
            format!("\n{}", get("\r\nHost: {host}\r\n\r\n")),
        ),
        ("bare_cr", 400, get("\r\nHost: {host}\r\nA: b\rc\r\n\r\n")),
        ("bare_cr", 400, get("\r\nHost: {host}\r\nA: b\r\r\n\r\n")),
        ("bare_cr", 400, get("\rHost: {host}\r\n\r\n")),
        (
            "control_character",
            400,
            get("\r\nHost: {host}\r\nA: b\0c\r\n\r\n"),
        ),
        (
            "control_character",
            400,
            get("\r\nHost: {host}\r\nA\0: b\r\n\r\n"),
        ),
        (
            "control_character",
            400,
            get("\r\nHost: {host}\r\nA: \x7f\r\n\r\n"),
        ),
        (
            "control_character",
            400,
            get("\r\nHost: {host}\r\nA: \x0bb\r\n\r\n"),
        ),
        (
            "control_character",
            400,
            "GET /\0 HTTP/1.1\r\nHost: {host}\r\n\r\n".to_owned(),
        ),
        (
            "control_character",
            400,
            "GET /\x1b HTTP/1.1\r\nHost: {host}\r\n\r\n".to_owned(),
        ),
        (
            "empty_lines",
            400,
            format!("\r\n\r\n\r\n{}", get("\r\nHost: {host}\r\n\r\n")),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let get = |fields: &str| head("GET / HTTP/1.1", fields);
    let bare = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let many: String = (0..100).map(|number| format!("A{number}: b\r\n")).collect();
    vec![
        ("folded_line", 400, get("A: b\r\n c\r\n")),
        ("folded_line", 400, get("A: b\r\n\tc\r\n")),
        (
            "folded_line",
            400,
            get("Transfer-Encoding: chunked\r\n\tfoo\r\n"),
        ),
        ("folded_line", 400, bare(" Host: {host}\r\n")),
        ("folded_line", 400, bare(" \r\nHost: {host}\r\n")),
        ("field_without_colon", 400, get("A b\r\n")),
        ("field_name", 400, get(": b\r\n")),
        ("field_name", 400, get("A B: c\r\n")),
        ("field_name", 400, get("A\"B: c\r\n")),
        ("field_name", 400, get("A(B): c\r\n")),
        ("field_name", 400, get("Ä: c\r\n")),
        ("blank_before_colon", 400, get("A : b\r\n")),
        ("blank_before_colon", 400, get("A\t: b\r\n")),
        ("blank_before_colon", 400, bare("Host : {host}\r\n")),
        ("host_missing", 400, bare("A: b\r\n")),
        (
            "host_missing",
            400,
            "GET http://{host}/ HTTP/1.1\r\n\r\n".to_owned(),
        ),
        ("host_repeated", 400, get("Host: {host}\r\n")),
        ("host_repeated", 400, get("host: other.example\r\n")),
        ("host_invalid", 400, bare("Host:\r\n")),
        ("host_invalid", 400, bare("Host: a b\r\n")),
        ("host_invalid", 400, bare("Host: {host}, other.example\r\n")),
        ("host_invalid", 400, bare("Host: a/b\r\n")),
        ("host_invalid", 400, bare("Host: http://{host}\r\n")),
        ("host_invalid", 400, bare("Host: user@{host}\r\n")),
        ("host_invalid", 400, bare("Host: a:b\r\n")),
        ("host_invalid", 400, bare("Host: a:1:2\r\n")),
        ("host_invalid", 400, bare("Host: [::1\r\n")),
        ("host_invalid", 400, bare("Host: [x]\r\n")),
        (
            "expectation",
            417,
            post("Expect: 200-ok\r\nContent-Length: 1\r\n", "x"),
        ),
        (
            "expectation",
            417,
            post("Expect: 100-continue, x\r\nContent-Length: 1\r\n", "x"),
        ),
        ("too_many_fields", 431, get(&many)),
        (
            "head_too_large",
            431,
            get(&format!("A: {}\r\n", "b".repeat(64 * 1024))),
        ),
        (
            "head_too_large",
            431,
            get(&format!("A: {}\r\n", "b".repeat(1000)).repeat(66)),
        ),
    ]
}

fn request_lines() -> Vec<Case> {
    let line = |line: &str| head(line, "");
    let long = format!("GET /{} HTTP/1.1", "a".repeat(16 * 1024));
    vec![
        ("request_line", 400, line("GET  / HTTP/1.1")),
        ("request_line", 400, line("GET /  HTTP/1.1")),
        ("request_line", 400, line("GET / HTTP/1.1 ")),
        ("request_line", 400, line("GET / b HTTP/1.1")),
        ("request_line", 400, line("GET\t/ HTTP/1.1")),
        ("request_line", 400, line(" GET / HTTP/1.1")),
        ("request_line", 400, line("\tGET / HTTP/1.1")),
        ("request_line", 400, line("GET /")),
        ("request_line", 400, line("GET")),
        ("request_line", 400, "\x01\x03garbage".to_owned()),
        ("version", 400, line("GET / http/1.1")),
        ("version", 400, line("GET / HTTP/1")),
        ("version", 400, line("GET / HTTP/11")),
        ("version", 400, line("GET / HTTP/1.10")),
        ("version", 400, line("GET / HTTP/+1.1")),
        ("version", 400, line("GET / HTTPS/1.1")),
        ("version_unsupported", 505, line("GET / HTTP/1.2")),
        ("version_unsupported", 505, line("GET / HTTP/0.9")),
        ("version_unsupported", 505, line("GET / HTTP/2.0")),
        ("version_unsupported", 505, line("GET / HTTP/9.9")),
        (
            "version_unsupported",
            505,
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
        ("method", 400, line("G(T / HTTP/1.1")),
        ("method", 400, line("GET: / HTTP/1.1")),
        ("target_form", 400, line("GET p HTTP/1.1")),
        ("target_form", 400, line("GET * HTTP/1.1")),
        ("target_form", 400, line("GET a.example:80 HTTP/1.1")),
        ("target_form", 400, line("GET ftp://a.example/ HTTP/1.1")),
        ("target_form", 400, line("GET http:/a.example/ HTTP/1.1")),
        ("target_form", 400, line("CONNECT /p HTTP/1.1")),
        (
            "target_form",
            400,
            line("CONNECT http://a.example/ HTTP/1.1"),
        ),
        ("target_character", 400, line("GET /ä HTTP/1.1")),
        ("target_character", 400, line("GET /a?<b HTTP/1.1")),
        ("target_fragment", 400, line("GET /a#b HTTP/1.1")),
        ("target_fragment", 400, line("GET /a?b#c HTTP/1.1")),
        (
            "target_user_info",
            400,
            line("GET http://me@{host}/ HTTP/1.1"),
        ),
        (
            "target_user_info",
            400,
            line("GET http://me:secret@{host}/ HTTP/1.1"),
        ),
        ("host_invalid", 400, line("GET http:///p HTTP/1.1")),
        ("request_line_too_long", 414, line(&long)),
    ]
}

fn lengths() -> Vec<Case> {
    let with = |value: &str| post(&format!("Content-Length: {value}\r\n"), "hello");
    let twice = |one: &str, two: &str| {
        post(
            &format!("Content-Length: {one}\r\nContent-Length: {two}\r\n"),
            "hello",
        )
    };
    let both = |fields: &str| post(fields, "5\r\nhello\r\n0\r\n\r\n");
    vec![
        ("length_invalid", 400, with("")),
        ("length_invalid", 400, with("+5")),
        ("length_invalid", 400, with("-5")),
        ("length_invalid", 400, with("5 ")),
        ("length_invalid", 400, with("5\t")),
        ("length_invalid", 400, with("\t5")),
        ("length_invalid", 400, with("5, 5")),
        ("length_invalid", 400, with("5,5")),
        ("length_invalid", 400, with("5 5")),
        ("length_invalid", 400, with("0x5")),
        ("length_invalid", 400, with("5.0")),
        ("length_invalid", 400, with("05")),
        ("length_invalid", 400, with("five")),
        ("length_invalid", 400, with("9223372036854775808")),
        ("length_invalid", 400, with("18446744073709551621")),
        ("length_invalid", 400, with(&"9".repeat(400))),
        ("length_repeated", 400, twice("5", "5")),
        ("length_repeated", 400, twice("5", "6")),
        ("length_repeated", 400, twice("5", "x")),
        ("length_invalid", 400, twice("x", "5")),
        (
            "length_and_coding",
            400,
            both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "length_and_coding",
            400,
            both("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ),
        (
            "length_and_coding",
            400,
            both("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ),
    ]
}

fn codings() -> Vec<Case> {
    let with = |value: &str| {
        post(
            &format!("Transfer-Encoding:{value}\r\n"),
            "5\r\nhello\r\n0\r\n\r\n",
        )
    };
    let old = "POST /p HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    vec![
        ("coding_unknown", 501, with(" gzip, chunked")),
        ("coding_unknown", 501, with(" identity, chunked")),
        ("coding_invalid", 400, with(" ,chunked")),
        ("coding_invalid", 400, with(" chunked,")),
        ("coding_invalid", 400, with(" chunked, identity")),
        ("coding_invalid", 400, with(" chunked, chunked")),
        ("coding_invalid", 400, with(" xchunked")),
        ("coding_invalid", 400, with(" chunkedx")),
        ("coding_invalid", 400, with(" identity")),
        ("coding_invalid", 400, with(" gzip")),
        ("coding_invalid", 400, with("")),
        ("coding_invalid", 400, with(" \"chunked\"")),
        ("coding_invalid", 400, with(" chunked;q=1")),
        ("coding_invalid", 400, with("\tchunked")),
        ("coding_invalid", 400, with(" chunked ")),
        ("coding_invalid", 400, with(" chunked\t")),
        ("control_character", 400, with(" \x0bchunked")),
        ("control_character", 400, with(" \x0cchunked")),
        (
            "blank_before_colon",
            400,
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "coding_repeated",
            400,
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "coding_repeated",
            400,
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                "0\r\n\r\n",
            ),
        ),
        ("coding_in_http_1_0", 400, old.to_owned()),
    ]
}

fn chunks() -> Vec<Case> {
    let trailer = |line: &str| chunked(&format!("0\r\n{line}\r\n\r\n"));
    vec![
        ("chunk_size", 400, chunked("x\r\n")),
        ("chunk_size", 400, chunked("\r\n")),
        ("chunk_size", 400, chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked("-5\r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked(" 5\r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked("5 \r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked("5 5\r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked("5_\r\nhello\r\n0\r\n\r\n")),
        ("chunk_size", 400, chunked("8000000000000000\r\n")),
        ("chunk_size", 400, chunked("10000000000000005\r\n")),
        ("chunk_size", 400, chunked("00000000000000005\r\n")),
        ("chunk_end", 400, chunked("5\r\nhello0\r\n\r\n")),
        ("chunk_end", 400, chunked("5\r\nhello!\r\n0\r\n\r\n")),
        ("bare_lf", 400, chunked("5\nhello\r\n0\r\n\r\n")),
        ("bare_lf", 400, chunked("5\r\nhello\n0\r\n\r\n")),
        ("bare_lf", 400, chunked("5\r\nhello\r\n0\n\r\n")),
        ("bare_lf", 400, chunked("5\r\nhello\r\n0\r\n\n")),
        ("bare_lf", 400, chunked("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        ("bare_cr", 400, chunked("5\rhello\r\n0\r\n\r\n")),
        ("bare_cr", 400, chunked("5;a\rb\r\nhello\r\n0\r\n\r\n")),
        (
            "control_character",
            400,
            chunked("5;a\0\r\nhello\r\n0\r\n\r\n"),
        ),
        ("chunk_extension", 400, chunked("5;\r\nhello\r\n0\r\n\r\n")),
        (
            "chunk_extension",
            400,
            chunked("5;=b\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "chunk_extension",
            400,
            chunked("5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        ),
        ("trailer_forbidden", 400, trailer("Content-Length: 5")),
        (
            "trailer_forbidden",
            400,
            trailer("transfer-encoding: chunked"),
        ),
        ("trailer_forbidden", 400, trailer("Host: other.example")),
        ("trailer_forbidden", 400, trailer("Signature: forged")),
        ("trailer_forbidden", 400, trailer("client-id: SOMEBODY")),
        ("trailer_forbidden", 400, trailer("Request-Time: now")),
        ("trailers_too_large", 400, trailer(&"A: b\r\n".repeat(65))),
        ("blank_before_colon", 400, trailer("A : b")),
        ("folded_line", 400, trailer("A: b\r\n c")),
    ]
}

/// Bodies that are malformed only behind what is looked at with the head.
pub fn long_bodies() -> Vec<Case> {
    let long = "b".repeat(8200);
    vec![
        (
            "chunk_extensions_too_long",
            400,
            chunked(&format!("5;a={long}\r\n")),
        ),
        (
            "chunk_extensions_too_long",
            400,
            chunked(&"1;a=bcdefghijklm\r\nx\r\n".repeat(600)),
        ),
        (
            "trailers_too_large",
            400,
            chunked(&format!("0\r\nA: {long}\r\n\r\n")),
        ),
        (
            "chunk_end",
            400,
            chunked(&format!("5000\r\n{}!\r\n", "x".repeat(0x5000))),
        ),
    ]
}
