//! Mistakes in the sections `resolve` and `upstream_proxy` are named with one clear line each, and
//! nothing of the credentials is shown.

use crate::bad_input_is_explained::one_line;
use crate::support::Files;
use crate::support::process::{countersign, text};

fn has_its_line(files: &Files, section: &str, expected: &str) {
    files.config("https://localhost:1", "", section);
    let line = one_line(files, "config.yaml");
    assert!(line.contains("config.yaml:"), "{section}: {line}");
    assert!(line.contains(expected), "{section}: {line}");
    assert!(!line.contains("secret"), "{section}: {line}");
}

#[test]
fn every_mistake_in_the_resolve_section_has_its_line() {
    let files = Files::new();
    for (content, expected) in [
        (
            "nameservers: [dns.example]",
            "resolve.nameservers[0]: \"dns.example\" is no nameserver's IP address; write it like \
             10.0.0.10, 10.0.0.10:53 or [2001:db8::1]:53",
        ),
        (
            "nameservers: [\"10.0.0.1:0\"]",
            "resolve.nameservers[0]: \"10.0.0.1:0\" is no nameserver's",
        ),
        (
            "nameservers: []",
            "resolve.nameservers: at least one nameserver is needed",
        ),
        (
            "nameservers: systems",
            "resolve.nameservers: \"systems\" is neither a list of addresses nor system",
        ),
        (
            "hosts: { a.example: [10.0.0.256] }",
            "resolve.hosts.a.example[0]: \"10.0.0.256\" is no IP address",
        ),
        (
            "hosts: { a.example: [] }",
            "resolve.hosts.a.example: at least one IP address is needed",
        ),
        (
            "hosts: { \"*.example\": [10.0.0.1] }",
            "\"*.example\" is no host name",
        ),
        (
            "hosts: { 10.0.0.1: [10.0.0.2] }",
            "\"10.0.0.1\" is an address already; a host name is needed",
        ),
        (
            "hosts: { a.example: [10.0.0.1], A.example.: [10.0.0.2] }",
            "a.example is given twice",
        ),
    ] {
        has_its_line(&files, &format!("resolve: {{ {content} }}"), expected);
    }
}

#[test]
fn every_mistake_in_the_proxy_section_has_its_line() {
    let files = Files::new();
    for (content, expected) in [
        (
            "no_proxy: [a]",
            "upstream_proxy: the key \"url\" is missing",
        ),
        (
            "url: \"https://p:3128\"",
            "upstream_proxy.url: \"https://p:3128\" is no proxy reached over plain HTTP",
        ),
        (
            "url: \"socks5://p:1080\"",
            "the only kind supported; write it like http://proxy.example:3128",
        ),
        (
            "url: \"http://p:3128/x\"",
            "must be scheme, host and port only",
        ),
        (
            "url: \"http://user:secret@p:3128\"",
            "upstream_proxy.url: no user name or password belongs into the URL; write them into \
             credentials_file",
        ),
    ] {
        has_its_line(
            &files,
            &format!("upstream_proxy: {{ {content} }}"),
            expected,
        );
    }
    for entry in ["*.example", "10.0.0.0/33", "10.0.0.0/", "a,b", "a:80", "."] {
        let section =
            format!("upstream_proxy: {{ url: \"http://p:3128\", no_proxy: [\"{entry}\"] }}");
        let expected = format!(
            "upstream_proxy.no_proxy[0]: \"{entry}\" is none of a host, .domain, IP address, \
             network like 10.0.0.0/8, *"
        );
        has_its_line(&files, &section, &expected);
    }
}

#[test]
fn credentials_that_cannot_be_used_are_named_without_being_shown() {
    let files = Files::new();
    files.write("empty", b"\r\n");
    files.write("colonless", b"user-secret\n");
    files.write("lines", b"user:secret\nuser:secret\n");
    files.write("control", b"user:sec\tret-secret\n");
    files.write("long", &[b':'; 5000]);
    for (file, expected) in [
        ("absent", "absent: no such file"),
        (".", ": cannot be read: "),
        ("empty", "empty: is empty; one line user:password is needed"),
        (
            "colonless",
            "colonless: has no colon; one line user:password is needed",
        ),
        (
            "lines",
            "lines: has several lines; one line user:password is needed",
        ),
        (
            "control",
            "control: has a control character; one line user:password is needed",
        ),
        (
            "long",
            "long: is over 4096 bytes; one line user:password is needed",
        ),
    ] {
        let section =
            format!("upstream_proxy: {{ url: \"http://p:3128\", credentials_file: {file} }}");
        has_its_line(&files, &section, expected);
        has_its_line(&files, &section, ": upstream_proxy.credentials_file: ");
    }
}

#[test]
fn check_shows_the_way_out_and_no_credentials() {
    let files = Files::new();
    files.write("credentials", b"user:secret\n");
    let sections = "resolve:\n  nameservers: [10.0.0.10, \"10.0.0.11:5353\", \"2001:db8::1\"]\n  \
        hosts: { Open-Sea-Global.alipayplus.com: [203.0.113.7, \"2001:db8::7\"] }\n\
        upstream_proxy:\n  url: http://proxy.corp.example:3128\n  \
        credentials_file: credentials\n  \
        no_proxy: [localhost, .corp.example, 10.0.0.0/8, \"::1\", \"*\"]";
    let file = files.config("https://localhost:1", "", sections);
    let output = countersign(&["check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in [
        "upstream: names are resolved by 10.0.0.10:53 10.0.0.11:5353 [2001:db8::1]:53\n",
        "upstream: open-sea-global.alipayplus.com is at 203.0.113.7 2001:db8::7\n",
        "upstream: through the proxy proxy.corp.example:3128 with credentials, \
         not for localhost .corp.example 10.0.0.0/8 ::1 *\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
}
