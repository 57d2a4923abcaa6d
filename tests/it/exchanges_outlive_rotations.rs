//! Keys are rotated while exchanges are under way, and none fails of it or is judged by the wrong key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, Signature, Timestamp, sign,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{RawGateway, read_message};
use crate::support::rotation::{CONFIG_OK, identity, key, rewrite, rotate, write_pair};
use crate::support::world::{PAY, payment};
use crate::support::{CLIENT_ID, World};

/// What the gateway answers to a payment, signed by that key.
fn answer(world: &World, version: u32, key: &PrivateKey) -> Vec<u8> {
    let body = r#"{"result":{"resultCode":"SUCCESS","resultStatus":"S"}}"#;
    let (client_id, time) = (
        ClientId::parse(CLIENT_ID).unwrap(),
        Timestamp::at(world.clock.now(), Offset::UTC),
    );
    let content = Content {
        method: "POST",
        uri: PAY,
        client_id: &client_id,
        time: &time,
        body: body.as_bytes(),
    };
    let signature = Signature {
        key_version: KeyVersion::new(version),
        value: sign(key, &content).unwrap(),
    };
    format!(
        "HTTP/1.1 200 OK\r\nClient-Id: {CLIENT_ID}\r\nResponse-Time: {time}\r\n\
         Signature: {signature}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_finishes_with_the_keys_it_began_with() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let old = &world.files.gateway;
    let (paid, ()) = tokio::join!(world.pay(""), async {
        let (_, mut stream) = gateway.next().await;
        write_pair(&world.files, 2, &key(), &key());
        rewrite(&world.files, &identity(2, &[2]));
        world.running.trigger.reload();
        world.until(CONFIG_OK, 1.0).await;
        // Only the ring it began with knows this key.
        stream.write_all(&answer(&world, 1, old)).await.unwrap();
    });
    assert_eq!(paid.outcome(), "verdict verified");
    let (paid, request) = tokio::join!(world.pay(""), async {
        let (request, mut stream) = gateway.next().await;
        stream.write_all(&answer(&world, 1, old)).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    assert!(request.contains("keyVersion=2,"), "{request}");
    assert_eq!(paid.outcome(), "response_key_unknown unknown 502");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_while_the_gateway_works_is_known_when_it_answers() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let new = key();
    let (paid, ()) = tokio::join!(world.pay(""), async {
        let (_, mut stream) = gateway.next().await;
        write_pair(&world.files, 2, &key(), &new);
        rewrite(&world.files, &identity(2, &[2]));
        world.running.trigger.reload();
        world.until(CONFIG_OK, 1.0).await;
        stream.write_all(&answer(&world, 2, &new)).await.unwrap();
    });
    assert_eq!(paid.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_kept_signs_with_the_key_of_the_moment() {
    let world = World::new().await;
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    let body = payment("R1");
    let request = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        world.egress,
        body.len()
    );
    for version in [1, 2] {
        if version == 2 {
            let (partner, gateway) = (key(), key());
            write_pair(&world.files, 2, &partner, &gateway);
            rotate(&world, &[(2, &partner)], (2, &gateway));
            rewrite(&world.files, &identity(2, &[2]));
            world.running.trigger.reload();
            world.until(CONFIG_OK, 1.0).await;
        }
        app.write_all(request.as_bytes()).await.unwrap();
        let answer = read_message(&mut app).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("countersign-verdict: verified"), "{answer}");
        let seen = world.gateway().last_seen().unwrap();
        let signature = seen.headers["signature"].to_str().unwrap();
        assert!(signature.contains(&format!("keyVersion={version},")));
    }
}

const EXCHANGES: u32 = 10_000;
const ROTATIONS: u32 = 50;
const APPS: usize = 16;
/// How many of them have begun.
static BEGUN: AtomicU32 = AtomicU32::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_exchanges_outlive_fifty_rotations_of_both_keys() {
    let world = Arc::new(World::now("", "reload_interval: off").await);
    let pairs: Vec<(PrivateKey, PrivateKey)> = (0..4).map(|_| (key(), key())).collect();
    let pair = |version: u32| &pairs[version as usize % pairs.len()];
    let finished = Arc::new(AtomicU32::new(0));
    let apps: Vec<_> = (0..APPS)
        .map(|_| tokio::spawn(pay_on(Arc::clone(&world), Arc::clone(&finished))))
        .collect();
    // The first one replaces the keys the world began with, which have version 1.
    let mut before = (
        1,
        (world.files.partner.clone(), world.files.gateway.clone()),
    );
    write_pair(&world.files, 1, &before.1.0, &before.1.1);
    for rotation in 1..=ROTATIONS {
        while finished.load(Ordering::SeqCst) < rotation * EXCHANGES / (ROTATIONS + 1) {
            assert!(!apps.iter().any(tokio::task::JoinHandle::is_finished));
            tokio::task::yield_now().await;
        }
        let (version, new) = (rotation + 1, pair(rotation));
        let (old, (old_partner, old_gateway)) = &before;
        let old = *old;
        // Two phases: everybody knows the new keys, then everybody uses them.
        write_pair(&world.files, version, &new.0, &new.1);
        let partner = [(old, old_partner), (version, &new.0)];
        rotate(&world, &partner, (old, old_gateway));
        rewrite(&world.files, &identity(version, &[old, version]));
        world.running.trigger.reload();
        world.until(CONFIG_OK, f64::from(rotation)).await;
        rotate(&world, &partner, (version, &new.1));
        before = (version, new.clone());
    }
    for app in apps {
        app.await.unwrap();
    }
    assert_eq!(world.gateway().deliveries(), u64::from(EXCHANGES));
    assert_eq!(world.verifications("verified"), f64::from(EXCHANGES));
    let seen = world.gateway().last_seen().unwrap();
    let signature = seen.headers["signature"].to_str().unwrap();
    assert!(signature.contains("keyVersion=51,"), "{signature}");
}

/// Pays on one connection until all have paid enough. The gateway checks each request with the key of
/// the version that it names, so one that mixed two would come back as a refusal.
async fn pay_on(world: Arc<World>, finished: Arc<AtomicU32>) {
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    loop {
        let number = BEGUN.fetch_add(1, Ordering::SeqCst);
        if number >= EXCHANGES {
            return;
        }
        let body = payment(&format!("R{number}"));
        let request = format!(
            "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            world.egress,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_message(&mut stream).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("countersign-verdict: verified"), "{answer}");
        finished.fetch_add(1, Ordering::SeqCst);
    }
}
