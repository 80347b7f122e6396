//! The end of a node: nothing that was begun is cut off, unless the deadline says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use edge::config;
use edge::drain::{NotReady, Readiness};
use edge::lifecycle::{self, Ended, Orders, Signals};

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
    assert_eq!(
        (answer.text(), answer.field("connection")),
        ("open", Some("close"))
    );
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
async fn a_handshake_that_ends_late_does_not_hold_up_a_drain() {
    let mut door = TestDoor::start();
    let tcp = tokio::net::TcpStream::connect(door.https).await.unwrap();
    let mut idle = TestClient::plain(door.plain).await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.answer().await;
    soon("closed sockets", door.workers.close_sockets()).await;
    door.drain.begin();
    // Nobody else is left then.
    assert!(idle.is_closed().await);
    let mut late = TestClient::tls_over(tcp, &door.ca, &["http/1.1"]).await;
    assert!(late.is_closed().await, "it asks for nothing, and is told to go");
    assert_eq!(door.drain.finish(Duration::from_secs(10)).await, 0);
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

/// Counts what it is told.
#[derive(Clone, Default)]
struct Counted(Arc<[AtomicU32; 2]>);

impl Orders for Counted {
    fn reload(&mut self) {
        self.0[0].fetch_add(1, Ordering::SeqCst);
    }

    fn reopen_logs(&mut self) {
        self.0[1].fetch_add(1, Ordering::SeqCst);
    }
}

impl Counted {
    async fn reaches(&self, order: usize) {
        let reached = async {
            while self.0[order].load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("an order", reached).await;
    }
}

fn send_to_myself(signal: &str) {
    let me = std::process::id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-s", signal, &me])
            .status()
            .unwrap()
            .success()
    );
}

/// One test, as every listener of this process hears each signal.
#[tokio::test]
async fn signals_are_obeyed_in_their_order() {
    let plan = |deadline| config::Drain {
        delay: Duration::from_secs(2),
        deadline,
    };

    let door = TestDoor::start();
    let (plain, drain) = (door.plain, door.drain.clone());
    let (readiness, orders) = (Readiness::default(), Counted::default());
    readiness.set(NotReady::Starting, false);
    let signals = Signals::listen().unwrap();
    let scenario = async {
        send_to_myself("HUP");
        orders.reaches(0).await;
        send_to_myself("USR1");
        orders.reaches(1).await;
        send_to_myself("USR2");
        assert!(readiness.is_ready());
        send_to_myself("TERM");
        let red = async {
            while readiness.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        soon("readiness to turn red", red).await;
        // Whoever has not heard of it yet is still served.
        let mut late = TestClient::plain(plain).await;
        late.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(late.answer().await.status, 200);
    };
    let plan_calm = plan(Duration::from_secs(10));
    let run = lifecycle::run(
        signals,
        orders.clone(),
        &plan_calm,
        &drain,
        &readiness,
        door.workers,
    );
    let (ended, ()) = tokio::join!(run, scenario);
    assert_eq!((ended, ended.code()), (Ended::Clean, 0));
    assert!(tokio::net::TcpStream::connect(plain).await.is_err());

    let door = TestDoor::start();
    let (plain, drain, script) = (door.plain, door.drain.clone(), Arc::clone(&door.script));
    let signals = Signals::listen().unwrap();
    let scenario = async {
        let mut stuck = TestClient::plain(plain).await;
        stuck.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await;
        while script.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        send_to_myself("INT");
        let begun = async { drain.begun().await };
        soon("the drain", begun).await;
        send_to_myself("INT");
        assert!(stuck.is_closed().await);
    };
    let plan_long = plan(Duration::from_secs(3600));
    let run = lifecycle::run(
        signals,
        Counted::default(),
        &plan_long,
        &drain,
        &readiness,
        door.workers,
    );
    let (ended, ()) = tokio::join!(run, scenario);
    assert_eq!((ended, ended.code()), (Ended::AtOnce, 130));
}
