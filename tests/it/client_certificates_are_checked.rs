//! Client certificates at a TLS listener: only those that were asked for pass, and what was asked for
//! changes with its file.

use std::time::Duration;

use countersign::clock::Clock;

use crate::support::listener::{Listener, Log};
use crate::support::pki::{Pki, argument};

#[tokio::test]
async fn required_client_certificates_let_in_only_those_of_the_ca() {
    let pki = Pki::new();
    for ca in ["partners", "others", "strangers"] {
        pki.authority(ca);
        pki.leaf(&format!("of-{ca}"), ca);
    }
    pki.write(
        "clients.pem",
        pki.read("partners.pem") + &pki.read("others.pem"),
    );
    let config = pki.config_for_clients("one", "clients.pem", true);
    let clock = Clock::held(Clock::system().now());
    let listener = Listener::start(&config, &clock).await;
    let log = Log::capture();
    let good = Ok("200 HTTP/2".to_owned());
    assert_eq!(listener.curl_as(&pki, "of-partners").await, good);
    assert_eq!(listener.curl_as(&pki, "of-others").await, good);
    assert!(listener.curl(&pki, &[]).await.is_err());
    assert!(listener.curl_as(&pki, "of-strangers").await.is_err());
    let count = |listener: &Listener| listener.handshakes("client_certificate");
    listener
        .until("refused twice", |one| count(one) == 2.0)
        .await;
    assert_eq!(log.lines("WARN"), [""; 0], "a scanner could fill the log");
    let said = log.lines("DEBUG").join("\n");
    for word in [
        "TLS handshake failed",
        "result=\"client_certificate\"",
        "listener=\"ingress\"",
        "peer=127.0.0.1:",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    // Its own dates count, by the process's clock.
    clock.advance(Duration::from_hours(60 * 24));
    assert!(listener.curl_as(&pki, "of-partners").await.is_err());
    listener
        .until("refused the expired", |one| count(one) == 3.0)
        .await;
}

#[tokio::test]
async fn optional_client_certificates_may_be_missing_but_not_wrong() {
    let pki = Pki::new();
    for ca in ["partners", "strangers"] {
        pki.authority(ca);
        pki.leaf(&format!("of-{ca}"), ca);
    }
    let config = pki.config_for_clients("one", "partners.pem", false);
    let listener = Listener::start(&config, &Clock::system()).await;
    let good = Ok("200 HTTP/2".to_owned());
    assert_eq!(listener.curl(&pki, &[]).await, good);
    assert_eq!(listener.curl_as(&pki, "of-partners").await, good);
    assert!(listener.curl_as(&pki, "of-strangers").await.is_err());
}

#[tokio::test]
async fn a_new_client_ca_counts_for_new_connections_and_resumed_sessions() {
    let pki = Pki::new();
    for ca in ["partners", "strangers"] {
        pki.authority(ca);
        pki.leaf(&format!("of-{ca}"), ca);
    }
    pki.write("clients.pem", pki.read("partners.pem"));
    let config = pki.config_for_clients("one", "clients.pem", true);
    let listener = Listener::start(&config, &Clock::system()).await;
    let session = argument(&pki.path("session"));
    let (certificate, key) = (pki.path("of-partners.pem"), pki.path("of-partners.key"));
    let (certificate, key) = (argument(&certificate), argument(&key));
    let shown = ["-tls1_2", "-cert", &certificate, "-key", &key];
    let first = listener
        .s_client(&[&shown[..], &["-sess_out", &session]].concat())
        .await;
    assert!(first.status.success(), "{first:?}");
    let resume = [&shown[..], &["-sess_in", &session]].concat();
    let again = listener.s_client(&resume).await;
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        said.contains("Reused, TLSv1.2"),
        "sessions are resumed: {said}"
    );

    pki.replace("clients.pem", pki.read("strangers.pem"));
    listener.until_reloaded(1.0).await;
    let again = listener.s_client(&resume).await;
    assert!(!again.status.success(), "{again:?}");
    assert!(listener.curl_as(&pki, "of-partners").await.is_err());
    let stranger = listener.curl_as(&pki, "of-strangers").await;
    assert_eq!(stranger, Ok("200 HTTP/2".to_owned()));
}
