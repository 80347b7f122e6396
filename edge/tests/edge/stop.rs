//! The end of a node: nothing that was begun is cut off, unless the deadline says so.

use std::time::Duration;

use super::client::{GOAWAY, TestClient, get, soon};
use super::door::TestDoor;

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_on_both_versions() {
    let mut door = TestDoor::start();
    let mut h1 = TestClient::plain(door.plain).await;
    h1.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut h2 = TestClient::tls(door.https, &door.ca, &["h2"]).await;
    h2.begin_h2(&[]).await;
    h2.send(get(1, "/gate")).await;
    let mut idle = TestClient::plain(door.plain).await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.answer().await;
    let both = async {
        while door.asked() < 3 {
            tokio::task::yield_now().await;
        }
    };
    soon("both requests", both).await;

    soon("closed sockets", door.workers.close_sockets()).await;
    assert!(tokio::net::TcpStream::connect(door.plain).await.is_err());
    door.drain.begin();
    assert!(idle.is_closed().await);
    h2.frame_until("goaway", |frame| frame.kind == GOAWAY).await;
    door.script.gate.0.add_permits(2);
    let answer = h1.answer().await;
    assert_eq!((answer.text(), answer.field("connection")), ("open", Some("close")));
    assert_eq!(h2.h2_status(1).await, 200);
    drop((h1, h2));
    assert_eq!(door.drain.finish(Duration::from_secs(10)).await, 0);
    door.workers.end();
}

#[tokio::test]
async fn the_deadline_of_a_drain_drops_what_is_left() {
    let mut door = TestDoor::start();
    let mut client = TestClient::plain(door.plain).await;
    client.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let asked = async {
        while door.asked() < 1 {
            tokio::task::yield_now().await;
        }
    };
    soon("the request", asked).await;
    door.workers.close_sockets().await;
    assert!(door.drain.finish(Duration::from_millis(100)).await > 0);
    assert!(client.is_closed().await);
    door.workers.end();
}

#[tokio::test]
async fn connections_in_the_backlog_are_still_answered() {
    let mut door = TestDoor::start();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(TestClient::plain(door.plain).await);
    }
    door.workers.close_sockets().await;
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
}
