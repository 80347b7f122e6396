//! When certificates are renewed, and which.

use std::time::Duration;

use certs::keeper::Outcome;
use certs::settings::KeyKind;

use crate::ca::Ca;
use crate::lab::{DAY, ID, Lab, NAME, route};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_not_before() {
    let lab = Lab::start().await;
    for life in [90 * DAY, 6 * DAY] {
        let node = lab.node(&format!("node-{}", life.as_secs()));
        lab.route_to(&node);
        lab.ca.mood(|mood| mood.life = Some(life));
        let orders = lab.ca.orders();
        let named = node.keeper.order_now(None, true).await.unwrap();
        assert_eq!(named[0].1, Outcome::Issued);
        let first = node.serves();
        lab.hand.advance(life * 2 / 3 - life / 50 - HOUR);
        assert!(matches!(node.look().await, Outcome::Waiting(_)));
        assert_eq!(lab.ca.orders(), orders + 1);
        lab.hand.advance(life / 50 + 2 * HOUR);
        assert_eq!(node.look().await, Outcome::Issued);
        assert_eq!(lab.ca.orders(), orders + 2);
        assert_ne!(node.serves(), first);
    }
}

#[tokio::test]
async fn the_window_of_the_ca_goes_first_and_the_order_names_what_it_replaces() {
    let lab = Lab::start().await;
    lab.ca.mood(|mood| mood.window = Some((20 * 86_400, 21 * 86_400)));
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    assert_eq!(lab.ca.order(0).get("replaces"), None);
    let Outcome::Waiting(until) = node.look().await else {
        panic!("it is not due");
    };
    let wait = until.duration_since(lab.hand.now()).unwrap();
    assert!(wait >= 20 * DAY && wait <= 21 * DAY, "{wait:?}");
    // Revoked soon: the window moves into the past, and is asked for every six hours.
    lab.ca.mood(|mood| mood.window = Some((-2 * 86_400, -86_400)));
    lab.hand.advance(5 * HOUR);
    assert!(
        matches!(node.look().await, Outcome::Waiting(_)),
        "not asked again yet"
    );
    lab.hand.advance(2 * HOUR);
    assert_eq!(node.look().await, Outcome::Issued);
    let replaced = lab.ca.order(1)["replaces"].as_str().unwrap().to_owned();
    assert!(replaced.contains('.'), "{replaced}");
}

#[tokio::test]
async fn a_profile_is_asked_for_and_both_kinds_of_key_stand_side_by_side() {
    let lab = Lab::start().await;
    let node = lab.node_with("node", |settings| {
        settings.managed[0].acme.profile = Some("shortlived".to_owned());
        settings.managed[0].acme.contact = vec!["mailto:ops@example.com".to_owned()];
        settings.managed[0].keys = vec![KeyKind::Ecdsa, KeyKind::Rsa];
    });
    lab.route_to(&node);
    assert_eq!(node.keeper.attend(0).await, Some(Outcome::Issued));
    assert_eq!(node.keeper.attend(1).await, Some(Outcome::Issued));
    assert_eq!(lab.ca.order(0)["profile"], "shortlived");
    let kinds: Vec<_> = node
        .keeper
        .good()
        .iter()
        .map(|(bundle, _)| bundle.algorithm())
        .collect();
    assert_eq!(
        kinds,
        [rustls::SignatureAlgorithm::ECDSA, rustls::SignatureAlgorithm::RSA]
    );
}

#[tokio::test]
async fn a_rehearsal_at_another_ca_proves_the_names_and_leaves_no_trace() {
    let lab = Lab::start().await;
    let (node, operator) = (lab.node("node"), lab.node("operator"));
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let staging = Ca::start(&lab.hand).await;
    // The node answers for the other CA too, by the key of the fleet's account.
    route(&staging, &node);
    let before = lab.contents().await;
    let rehearsed = operator
        .keeper
        .rehearse(None, &staging.directory())
        .await
        .unwrap();
    assert_eq!(rehearsed, [(ID.to_owned(), Outcome::Issued)]);
    staging.ask_by(|_, _| std::future::ready(None));
    let rehearsed = operator
        .keeper
        .rehearse(Some(NAME), &staging.directory())
        .await
        .unwrap();
    assert!(matches!(&rehearsed[0].1, Outcome::Failed(_)), "{rehearsed:?}");
    assert_eq!((staging.orders(), lab.ca.orders()), (2, 1));
    assert_eq!(lab.contents().await, before);
    assert!(
        operator
            .keeper
            .rehearse(Some("other.example"), "x")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_name_that_is_added_is_ordered_and_nodes_with_the_old_configuration_take_it() {
    let lab = Lab::start().await;
    let old = lab.node("old");
    lab.route_to(&old);
    assert_eq!(old.look().await, Outcome::Issued);
    let new = lab.node_with("new", |settings| {
        settings.managed[0].names.push("www.example.com".to_owned());
    });
    let answers = [old.keeper.answers(), new.keeper.answers()].map(std::sync::Arc::clone);
    lab.ca.ask_by(move |name, token| {
        let path = format!("/.well-known/acme-challenge/{token}");
        let mut asked = answers
            .iter()
            .filter_map(|answers| answers.http(name, &path)?.text());
        std::future::ready(asked.next())
    });
    assert!(
        matches!(new.look().await, Outcome::Waiting(_)),
        "an hour after the last one"
    );
    lab.hand.advance(HOUR + Duration::from_secs(1));
    assert_eq!(new.look().await, Outcome::Issued);
    assert!(matches!(old.look().await, Outcome::Waiting(_)));
    assert_eq!(old.serves(), new.serves());
    assert_eq!(lab.ca.orders(), 2);
}
