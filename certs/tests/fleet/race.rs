//! One certificate, many nodes: who orders, who takes over, and who may write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certs::keeper::Outcome;

use crate::ca::Gate;
use crate::lab::{LEASE, Lab, Node, until};

type Work = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn work(node: &Node) -> Work {
    let keeper = Arc::clone(&node.keeper);
    Box::pin(async move { keeper.attend(0).await.unwrap() })
}

/// Lets `node` order from a CA that does not issue before the gate is opened, until it waits for that.
async fn held_up(lab: &Lab, node: &Node) -> (Work, Arc<Gate>) {
    lab.route_to(node);
    let gate = Arc::new(Gate::default());
    lab.ca.mood(|mood| mood.hold = Some(Arc::clone(&gate)));
    (until(work(node), gate.reached()).await, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_at_one_moment_place_one_order_and_all_serve_it() {
    for lab in [Lab::start().await, Lab::in_folder().await] {
        let nodes: Vec<Node> = (0..5).map(|number| lab.node(&format!("node-{number}"))).collect();
        lab.route_to(&nodes[3]);
        let racing: Vec<_> = nodes
            .iter()
            .map(|node| {
                let keeper = Arc::clone(&node.keeper);
                tokio::spawn(async move { keeper.attend(0).await.unwrap() })
            })
            .collect();
        let mut outcomes = Vec::new();
        for racing in racing {
            outcomes.push(racing.await.unwrap());
        }
        let issued = outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Issued)
            .count();
        assert_eq!(issued, 1, "{outcomes:?}");
        // One more look each: that is within two intervals, however the first fell.
        for node in &nodes {
            node.look().await;
        }
        assert_eq!(lab.ca.orders(), 1);
        assert_eq!(lab.ca.accounts(), 1);
        let serial = nodes[0].serves().unwrap();
        for node in &nodes {
            assert_eq!(node.serves().as_ref(), Some(&serial));
            assert!(node.changes.load(Ordering::SeqCst) > 0);
        }
    }
}

#[tokio::test]
async fn a_node_that_never_ordered_answers_the_validation_of_another() {
    let lab = Lab::start().await;
    let (orderer, answerer) = (lab.node("orderer"), lab.node("answerer"));
    // It has looked at the store once, and knows the account; of the order it knows nothing.
    lab.ca
        .mood(|mood| mood.refuse.push(("/directory", 500, "serverInternal", None)));
    assert!(matches!(answerer.look().await, Outcome::Failed(_)));
    lab.hand.advance(Duration::from_secs(600));
    lab.route_to(&answerer);
    assert_eq!(orderer.look().await, Outcome::Issued);
    assert_eq!(lab.ca.orders(), 1);
}

#[tokio::test]
async fn the_holder_dies_after_its_order_and_another_finishes_that_order() {
    let lab = Lab::start().await;
    let (first, second) = (lab.node("first"), lab.node("second"));
    let (dying, _gate) = held_up(&lab, &first).await;
    drop(dying);
    lab.ca.mood(|mood| mood.hold = None);
    assert_eq!(
        second.look().await,
        Outcome::Busy("first".to_owned()),
        "the lease still stands"
    );
    lab.hand.advance(LEASE + Duration::from_secs(2));
    assert_eq!(second.look().await, Outcome::Issued);
    assert_eq!(
        lab.ca.orders(),
        1,
        "the order that was left was taken up, with its key"
    );
    let _ = first.look().await;
    assert_eq!(first.serves(), second.serves());
}

#[tokio::test]
async fn a_holder_that_slept_past_its_lease_writes_nothing() {
    let lab = Lab::start().await;
    let (sleeper, thief) = (lab.node("sleeper"), lab.node("thief"));
    let (asleep, gate) = held_up(&lab, &sleeper).await;
    lab.hand.advance(LEASE + Duration::from_secs(2));
    gate.open();
    lab.ca.mood(|mood| mood.hold = None);
    assert_eq!(thief.look().await, Outcome::Issued);
    let before = lab.contents().await;
    lab.bucket.clear_log();
    assert_eq!(asleep.await, Outcome::Lost);
    assert_eq!(lab.contents().await, before);
    let log = lab.bucket.log();
    let written = log
        .iter()
        .filter(|seen| seen.method == "PUT" && seen.status.is_some_and(|status| status < 300))
        .count();
    assert_eq!(written, 0);
    assert!(
        log.iter().any(|seen| seen.status == Some(412)),
        "it tried, and was refused"
    );
    let _ = sleeper.look().await;
    assert_eq!(sleeper.serves(), thief.serves());
}

/// As above, but the thief has only stolen the lease, and has nothing to publish yet: the slot is all that stops the sleeper.
#[tokio::test]
async fn a_stolen_lease_alone_keeps_the_sleeper_from_writing() {
    let lab = Lab::start().await;
    let (sleeper, thief) = (lab.node("sleeper"), lab.node("thief"));
    let (asleep, gate) = held_up(&lab, &sleeper).await;
    lab.hand.advance(LEASE + Duration::from_secs(2));
    let stealing = until(work(&thief), gate.reached()).await;
    gate.open();
    gate.open();
    lab.ca.mood(|mood| mood.hold = None);
    let before = lab.contents().await;
    assert_eq!(asleep.await, Outcome::Lost);
    assert_eq!(lab.contents().await, before);
    assert_eq!(stealing.await, Outcome::Issued);
}

#[tokio::test]
async fn a_lease_of_a_clock_that_is_years_ahead_does_not_stand_in_the_way() {
    let lab = Lab::start().await;
    let slot = br#"{"lease":{"owner":"lost","expires":9999999999}}"#.to_vec();
    let key = "names/cdn.example.com/ecdsa/current.json";
    lab.objects
        .put(key, slot, certs::store::OnlyIf::Absent)
        .await
        .unwrap();
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
}
