//! A CA and a store that fail: what is served stays, and nobody hammers at the door.

use std::time::Duration;

use certs::keeper::Outcome;
use origin_sync::bucket::{Fault, Rule};

use crate::lab::{DAY, LEASE, Lab, NAME};

fn failed(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_the_ca_asks_to_wait_is_waited_by_every_node() {
    let lab = Lab::start().await;
    let (one, other) = (lab.node("one"), lab.node("other"));
    lab.route_to(&one);
    lab.ca
        .mood(|mood| mood.refuse.push(("/order", 429, "rateLimited", Some(7200))));
    let outcome = one.look().await;
    assert!(failed(&outcome).contains("rateLimited"), "{outcome:?}");
    for node in [&one, &other] {
        let Outcome::Waiting(until) = node.look().await else {
            panic!("it must wait");
        };
        let wait = until.duration_since(lab.hand.now()).unwrap();
        assert!(
            wait >= Duration::from_secs(7199) && wait <= Duration::from_secs(7201),
            "{wait:?}"
        );
    }
    assert_eq!(lab.ca.asked("/order"), 1);
    lab.hand.advance(Duration::from_secs(7202));
    assert_eq!(other.look().await, Outcome::Issued);
    assert_eq!(other.keeper.status()[0].failures, 0);
}

#[tokio::test]
async fn pauses_grow_with_each_failure_and_the_failures_of_all_nodes_count() {
    let lab = Lab::start().await;
    let nodes = [lab.node("one"), lab.node("other")];
    let mut pauses = Vec::new();
    for turn in 0..6 {
        lab.ca
            .mood(|mood| mood.refuse.push(("/directory", 500, "serverInternal", None)));
        let node = &nodes[turn % 2];
        assert!(matches!(node.look().await, Outcome::Failed(_)));
        let Outcome::Waiting(until) = node.look().await else {
            panic!("it must wait");
        };
        pauses.push(until.duration_since(lab.hand.now()).unwrap());
        lab.hand.advance(pauses[turn]);
    }
    assert_eq!(nodes[1].keeper.status()[0].failures, 6);
    assert!(pauses[5] >= pauses[0] * 8, "{pauses:?}");
}

#[tokio::test]
async fn bad_nonces_do_not_stop_an_order() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    lab.ca.mood(|mood| mood.bad_nonce_each = Some(3));
    assert_eq!(node.look().await, Outcome::Issued);
    // More in a row than instant-acme forgives.
    lab.ca.mood(|mood| {
        mood.bad_nonce_each = None;
        mood.bad_nonces = 7;
    });
    lab.hand.advance(80 * DAY);
    assert_eq!(node.look().await, Outcome::Issued);
    assert_eq!(lab.ca.orders(), 2);
}

#[tokio::test]
async fn an_answer_without_end_and_a_silent_refusal_are_failures_like_others() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    lab.ca.mood(|mood| mood.huge = true);
    assert!(matches!(node.look().await, Outcome::Failed(_)));
    lab.ca.mood(|mood| {
        mood.huge = false;
        mood.refuse.push(("/finalize", 500, "serverInternal", None));
    });
    lab.hand.advance(DAY);
    assert!(matches!(node.look().await, Outcome::Failed(_)));
    lab.hand.advance(DAY);
    assert_eq!(node.look().await, Outcome::Issued);
}

#[tokio::test]
async fn an_order_that_gets_stuck_is_given_up_for_now_and_taken_up_again_with_its_key() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let first = node.serves();
    lab.hand.advance(61 * DAY);
    lab.ca.mood(|mood| mood.stuck = true);
    let hasty = |settings: &mut certs::Settings| {
        settings.managed[0].acme.patience = Duration::from_secs(2);
    };
    let hasty = lab.node_with("hasty", hasty);
    let outcome = hasty.look().await;
    assert!(failed(&outcome).contains("the order got stuck"), "{outcome:?}");
    assert!(
        matches!(node.look().await, Outcome::Waiting(_)),
        "one failure holds up all"
    );
    assert_eq!(node.serves(), first);
    lab.ca.mood(|mood| mood.stuck = false);
    lab.hand.advance(DAY);
    assert_eq!(node.look().await, Outcome::Issued);
    assert_ne!(node.serves(), first);
    assert_eq!(
        lab.ca.orders(),
        2,
        "the order that was stuck is the one that issued"
    );
}

#[tokio::test]
async fn a_certificate_for_other_names_or_of_another_key_is_not_published() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let first = node.serves();
    lab.hand.advance(61 * DAY);
    lab.ca.mood(|mood| mood.wrong_name = Some("other.example.com"));
    let outcome = node.look().await;
    assert!(failed(&outcome).contains("is for other names"), "{outcome:?}");
    lab.ca.mood(|mood| {
        mood.wrong_name = None;
        mood.wrong_key = true;
    });
    lab.hand.advance(DAY);
    let outcome = node.look().await;
    assert!(failed(&outcome).contains("does not fit"), "{outcome:?}");
    assert_eq!(node.serves(), first);
    lab.ca.mood(|mood| mood.wrong_key = false);
    lab.hand.advance(DAY);
    assert_eq!(node.look().await, Outcome::Issued);
    assert_ne!(node.serves(), first);
}

#[tokio::test]
async fn a_validation_that_fails_says_so_and_the_next_try_places_a_new_order() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.ca.ask_by(|_, _| std::future::ready(Some("wrong".to_owned())));
    let outcome = node.look().await;
    assert!(failed(&outcome).contains("invalid"), "{outcome:?}");
    lab.route_to(&node);
    lab.hand.advance(DAY);
    assert_eq!(node.look().await, Outcome::Issued);
    assert_eq!(lab.ca.orders(), 2);
}

/// The CA is gone for a month: tries go on, the certificate goes on serving to its end, and the first answer mends it.
#[tokio::test]
async fn a_ca_that_is_down_for_thirty_days_costs_nothing_but_tries() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let first = node.serves();
    lab.hand.advance(60 * DAY);
    let mut tries = 0;
    for _ in 0..29 * 4 {
        lab.ca.mood(|mood| {
            mood.refuse.clear();
            mood.refuse.push(("/directory", 503, "serverInternal", None));
            mood.refuse.push(("/directory", 503, "serverInternal", None));
        });
        tries += usize::from(matches!(node.look().await, Outcome::Failed(_)));
        assert_eq!(node.serves(), first);
        lab.hand.advance(Duration::from_secs(6 * 3600));
    }
    assert!(tries > 29, "{tries}");
    lab.ca.mood(|mood| mood.refuse.clear());
    lab.hand.advance(Duration::from_secs(8 * 3600));
    assert_eq!(node.look().await, Outcome::Issued);
    assert_ne!(node.serves(), first);
}

#[tokio::test]
async fn a_store_that_is_down_changes_nothing_and_a_node_starts_from_its_own_disk() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let fault = lab
        .bucket
        .faults()
        .add(Rule::new(Fault::Status(403, "AccessDenied".to_owned())));
    assert!(matches!(node.look().await, Outcome::StoreDown(_)));
    let again = lab.node("node");
    assert_eq!(again.serves(), node.serves());
    assert!(matches!(again.look().await, Outcome::StoreDown(_)));
    // It answers for the fleet as well, for it remembers the account.
    assert!(again.answers(NAME).await.is_some());
    lab.bucket.faults().remove(fault);
    assert!(matches!(again.look().await, Outcome::Waiting(_)));
    assert_eq!(lab.ca.orders(), 1);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_known_again() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    // The object is written, the answer never comes: the SDK tries again, and is refused by its own write.
    lab.bucket.faults().add(
        Rule::new(Fault::TruncateAfter(0))
            .method("PUT")
            .prefix("certificates/names/")
            .times(1),
    );
    let outcome = node.look().await;
    if outcome != Outcome::Issued {
        lab.hand.advance(LEASE * 4);
        assert_eq!(node.look().await, Outcome::Issued, "{outcome:?}");
    }
    assert_eq!(lab.ca.orders(), 1);
}
