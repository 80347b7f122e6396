//! The account that a fleet shares: a CA may ask a node that has not heard of it yet, or that answers for an older one.

use std::time::Duration;

use certs::keeper::Outcome;
use certs::settings::{Binding, Secret};
use origin_sync::bucket::{Fault, Rule};

use crate::lab::{DAY, Lab, NAME};

/// Requests for the account since the log was cleared.
fn account_reads(lab: &Lab) -> usize {
    let log = lab.bucket.log();
    log.iter()
        .filter(|seen| seen.key.starts_with("certificates/accounts/"))
        .count()
}

#[tokio::test]
async fn a_node_that_never_heard_of_the_account_looks_before_it_says_no() {
    let lab = Lab::start().await;
    let (orderer, answerer) = (lab.node("orderer"), lab.node("answerer"));
    lab.route_to(&answerer);
    assert_eq!(orderer.look().await, Outcome::Issued);
    assert_eq!(lab.ca.orders(), 1);
}

#[tokio::test]
async fn a_bound_account_is_made_once_and_answered_by_a_node_that_never_saw_it() {
    let lab = Lab::start().await;
    let bound = |settings: &mut certs::Settings| {
        settings.managed[0].acme.binding = Some(Binding {
            id: "kid-1".to_owned(),
            key: Secret("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0".to_owned()),
        });
    };
    let (one, other) = (lab.node_with("one", bound), lab.node_with("other", bound));
    lab.route_to(&other);
    assert_eq!(one.look().await, Outcome::Issued);
    assert!(matches!(other.look().await, Outcome::Waiting(_)));
    assert!(lab.ca.account_payloads()[0]["externalAccountBinding"]["signature"].is_string());
    assert_eq!((lab.ca.orders(), lab.ca.accounts()), (1, 1));
}

#[tokio::test]
async fn many_who_ask_before_there_is_an_account_cost_one_look_and_make_nothing() {
    let lab = Lab::start().await;
    let (node, orderer) = (lab.node("node"), lab.node("orderer"));
    lab.route_to(&node);
    lab.bucket.clear_log();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let keeper = std::sync::Arc::clone(&node.keeper);
        let answer = keeper.challenge(NAME, "/.well-known/acme-challenge/t");
        asking.spawn(answer.unwrap());
    }
    assert!(asking.join_all().await.iter().all(Option::is_none));
    // One, and another where some asked after the first had begun.
    assert!((1..=2).contains(&account_reads(&lab)), "{}", account_reads(&lab));
    assert!(lab.contents().await.is_empty(), "who asks makes no account");
    // What cannot be answered with an account either is not looked for.
    lab.bucket.clear_log();
    assert_eq!(node.answers("other.example.com").await, None);
    let odd = node.keeper.challenge(NAME, "/.well-known/acme-challenge/t/");
    assert_eq!(odd.unwrap().await, None);
    assert!(node.keeper.challenge(NAME, "/").is_none());
    assert_eq!(account_reads(&lab), 0);
    assert_eq!(orderer.look().await, Outcome::Issued);
}

#[tokio::test]
async fn a_node_that_knows_the_account_asks_no_store() {
    let lab = Lab::start().await;
    let (orderer, node) = (lab.node("orderer"), lab.node("node"));
    lab.route_to(&node);
    assert_eq!(orderer.look().await, Outcome::Issued);
    let answer = node.answers(NAME).await;
    assert!(answer.is_some());
    let fault = lab
        .bucket
        .faults()
        .add(Rule::new(Fault::Status(403, "AccessDenied".to_owned())));
    lab.bucket.clear_log();
    assert_eq!(node.answers(NAME).await, answer);
    assert!(lab.bucket.log().is_empty());
    // One that knows nothing, and cannot ask, says no instead of waiting for ever.
    let stranger = lab.node("stranger");
    lab.route_to(&stranger);
    assert_eq!(stranger.answers(NAME).await, None);
    lab.bucket.faults().remove(fault);
    assert_eq!(stranger.answers(NAME).await, answer);
}

#[tokio::test]
async fn an_account_that_takes_the_place_of_another_is_ordered_with_once_all_have_seen_it() {
    let lab = Lab::start().await;
    let (one, other) = (lab.node("one"), lab.node("other"));
    lab.route_to(&other);
    assert_eq!(one.look().await, Outcome::Issued);
    other.look().await;
    let before = other.answers(NAME).await;
    for (key, _) in lab.contents().await {
        lab.objects.delete(&key).await.unwrap();
    }
    lab.hand.advance(80 * DAY);
    let Outcome::Waiting(until) = one.look().await else {
        panic!("the other node still answers for the old one");
    };
    assert_eq!(until, lab.hand.now() + Duration::from_secs(120), "two looks");
    assert_eq!(lab.ca.orders(), 1);
    lab.hand.advance(Duration::from_secs(70));
    assert_eq!(
        other.look().await,
        Outcome::Waiting(until + Duration::from_secs(70))
    );
    assert_ne!(other.answers(NAME).await, before);
    lab.hand.advance(Duration::from_secs(50));
    assert_eq!(one.look().await, Outcome::Issued);
    assert_eq!((lab.ca.orders(), lab.ca.accounts()), (2, 2));
}

#[tokio::test]
async fn a_key_of_the_store_can_be_dropped_once_all_was_renewed_under_the_next() {
    let lab = Lab::start().await;
    let (old, new) = (hex::encode([7; 32]), hex::encode([9; 32]));
    let with = |keys: String| move |settings: &mut certs::Settings| settings.store.keys = Secret(keys);
    let before = lab.node_with("before", with(old.clone()));
    lab.route_to(&before);
    assert_eq!(before.look().await, Outcome::Issued);
    let print = before.answers(NAME).await;
    let both = lab.node_with("both", with(format!("{new}\n{old}")));
    let renewed = both.keeper.order_now(None, true).await.unwrap();
    assert_eq!(renewed[0].1, Outcome::Issued);

    let after = lab.node_with("after", with(new));
    lab.route_to(&after);
    assert!(matches!(after.look().await, Outcome::Waiting(_)));
    assert_eq!(after.serves(), both.serves());
    assert_eq!(after.answers(NAME).await, print, "it is the same account");
    let renewed = after.keeper.order_now(None, true).await.unwrap();
    assert_eq!(renewed[0].1, Outcome::Issued);
    assert_eq!((lab.ca.orders(), lab.ca.accounts()), (3, 1));
}
