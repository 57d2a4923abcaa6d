//! What a TLS listener cannot show is refused with file and key, and its section is read with every
//! mistake named.

use std::fs;
use std::time::Duration;

use countersign::clock::Clock;
use countersign::config;
use countersign::net::certificate::Served;

use crate::support::pki::Pki;

/// Certificate, key and CA file, and what is said of them.
const UNUSABLE: &[(&str, &str, &str, &str)] = &[
    (
        "absent",
        "one.key",
        "ca.pem",
        "certificate_file: absent: no such file",
    ),
    (
        "folder",
        "one.key",
        "ca.pem",
        "certificate_file: folder: is a directory; name the file in it",
    ),
    (
        "large",
        "one.key",
        "ca.pem",
        "certificate_file: large: over 1 MiB, so no file of certificates or keys",
    ),
    (
        "one.key",
        "one.key",
        "ca.pem",
        "certificate_file: one.key: holds no certificate; a PEM file with CERTIFICATE blocks is needed, the server's own first",
    ),
    (
        "garbage",
        "one.key",
        "ca.pem",
        "certificate_file: garbage: its first certificate cannot be read",
    ),
    (
        "one.pem",
        "absent",
        "ca.pem",
        "key_file: absent: no such file",
    ),
    (
        "one.pem",
        "one.pem",
        "ca.pem",
        "key_file: one.pem: holds no private key; a PEM file with a PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY block is needed",
    ),
    (
        "one.pem",
        "pkcs8.key",
        "ca.pem",
        "key_file: pkcs8.key: the private key is encrypted; a plain one is needed",
    ),
    (
        "one.pem",
        "old.key",
        "ca.pem",
        "key_file: old.key: the private key is encrypted; a plain one is needed",
    ),
    (
        "odd.pem",
        "odd.key",
        "ca.pem",
        "key_file: odd.key: the private key cannot be used; RSA, or EC on P-256, P-384 or P-521 is needed",
    ),
    (
        "one.pem",
        "two.key",
        "ca.pem",
        "key_file: two.key: the private key does not fit the first certificate of one.pem",
    ),
    (
        "reversed.pem",
        "one.key",
        "ca.pem",
        "key_file: one.key: the private key does not fit the first certificate of reversed.pem but a later one; the server's own must come first",
    ),
    (
        "one.pem",
        "one.key",
        "absent",
        "client_ca_file: absent: no such file",
    ),
    (
        "one.pem",
        "one.key",
        "empty",
        "client_ca_file: empty: holds no usable CA certificate; a PEM file with CERTIFICATE blocks is needed",
    ),
    (
        "one.pem",
        "one.key",
        "garbage",
        "client_ca_file: garbage: holds no usable CA certificate; a PEM file with CERTIFICATE blocks is needed",
    ),
];

#[test]
fn what_cannot_be_shown_is_refused_at_the_start_with_file_and_key() {
    let pki = Pki::new();
    pki.leaf("two", "ca");
    pki.leaf_with(
        "odd",
        "ca",
        &["EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
    );
    for (out, further) in [("pkcs8.key", &[][..]), ("old.key", &["-traditional"])] {
        let line = [
            "pkey", "-in", "one.key", "-aes256", "-passout", "pass:x", "-out", out,
        ];
        pki.openssl(&[&line, further].concat());
    }
    pki.write("reversed.pem", pki.read("ca.pem") + &pki.read("one.pem"));
    pki.write("empty", "");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    pki.write("garbage", garbage);
    pki.write("large", vec![b'#'; (1 << 20) + 1]);
    fs::create_dir(pki.path("folder")).unwrap();
    for (certificate, key, ca, expected) in UNUSABLE {
        let mut config = pki.config_for_clients("one", ca, true);
        config.certificate = pki.source(certificate, "certificate_file");
        config.key = pki.source(key, "key_file");
        let error = Served::load(&config, &Clock::system()).unwrap_err();
        let folder = format!("{}/", pki.folder.path().display());
        let found = format!("{}: {error}", error.place()).replace(&folder, "");
        assert_eq!(found, *expected);
    }
}

#[test]
fn the_section_is_read_with_its_defaults_and_every_mistake_named() {
    let read = |text: &str| {
        let mut problems = config::document::Problems::default();
        let map = config::document::read("f.yaml", text, &mut problems).unwrap();
        let config = config::tls::read(map, "/etc/c".as_ref(), &mut problems);
        (config, problems.into_lines())
    };
    let (config, problems) = read("certificate_file: a.pem\nkey_file: /b.key\n");
    let config = config.unwrap();
    assert_eq!(problems, [""; 0]);
    assert_eq!(config.certificate.file.to_str(), Some("/etc/c/a.pem"));
    assert_eq!(config.certificate.place, "f.yaml:1: certificate_file");
    assert_eq!(config.key.file.to_str(), Some("/b.key"));
    assert_eq!(config.reload_interval, Duration::from_secs(5));
    assert!(config.clients.is_none());
    let both = "certificate_file: a\nkey_file: a\nclient_ca_file: c\nreload_interval: 50ms\n";
    let (config, problems) = read(both);
    let config = config.unwrap();
    assert_eq!(
        (problems, config.reload_interval),
        (vec![], Duration::from_millis(50))
    );
    assert!(config.clients.unwrap().required, "by default");
    let (config, _) = read(&format!("{both}client_certificates: optional\n"));
    assert!(!config.unwrap().clients.unwrap().required);
    let wrong = "key_file: [a]\nclient_certificates: yes\nreload_interval: 20ms\nkey: x\n";
    assert_eq!(
        read(wrong).1,
        [
            "f.yaml:1: the key \"certificate_file\" is missing",
            "f.yaml:1: key_file: must be a single value",
            "f.yaml:2: client_certificates: needs client_ca_file, the CAs they may come from",
            "f.yaml:2: client_certificates: \"yes\" is neither required nor optional",
            "f.yaml:3: reload_interval: \"20ms\" is out of range; 50ms to 1h are allowed",
            "f.yaml:4: key: unknown key \"key\"; known here: certificate_file, key_file, client_ca_file, client_certificates, reload_interval",
        ]
    );
}
