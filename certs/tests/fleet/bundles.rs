//! Bundles in the store that are not what they should be: refused with a reason, and the last good one is served.

use std::time::Duration;

use certs::keeper::Outcome;
use certs::settings::Secret;
use certs::store::seal::Place;
use certs::store::slot::{bundle_key, slot_key};
use certs::store::{Keyring, Slot, Tag};
use serde_json::json;

use crate::lab::{DAY, Hand, ID, Lab, NAME, Node};

const SERIAL: &str = "0badc0de";

/// A node that serves a good certificate, in front of a store whose slot is made to name another.
async fn with_slot(sealed: Vec<u8>) -> (Lab, Node, Option<String>) {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let good = node.serves();
    point(&lab, SERIAL).await;
    put(&lab, &bundle_key(ID, SERIAL), sealed).await;
    (lab, node, good)
}

/// Writes an object, whatever is there.
async fn put(lab: &Lab, key: &str, body: Vec<u8>) {
    let only_if = match lab.objects.get(key).await.unwrap() {
        Some(object) => certs::store::OnlyIf::Unchanged(object.tag),
        None => certs::store::OnlyIf::Absent,
    };
    let _: Tag = lab.objects.put(key, body, only_if).await.unwrap();
}

/// Makes the slot name another bundle.
async fn point(lab: &Lab, serial: &str) {
    let object = lab.objects.get(&slot_key(ID)).await.unwrap().unwrap();
    let mut slot: Slot = serde_json::from_slice(&object.body).unwrap();
    slot.current.as_mut().unwrap().serial = serial.to_owned();
    put(lab, &slot_key(ID), serde_json::to_vec(&slot).unwrap()).await;
}

fn keys() -> Keyring {
    Keyring::parse(&hex::encode([7; 32])).unwrap()
}

fn seal(material: &serde_json::Value, id: &str, serial: &str) -> Vec<u8> {
    keys()
        .seal(&Place::Bundle { id, serial }, material.to_string().as_bytes())
        .unwrap()
}

/// A self-signed certificate, as a bundle that says it has `serial`.
fn material(name: &str, serial: &str, from: i64, days: u32, other_key: bool) -> serde_json::Value {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&hex::decode(serial).unwrap()));
    let now = Hand::new().now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let start = now.as_secs() as i64 + from * 86_400;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(start as u64);
    params.not_after = params.not_before + DAY * days;
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let key = if other_key {
        rcgen::KeyPair::generate().unwrap()
    } else {
        key
    };
    json!({"serial": serial, "not_after": 1, "chain": chain, "key": key.serialize_pem()})
}

async fn check(sealed: Vec<u8>, reason: &str) {
    let (lab, node, good) = with_slot(sealed).await;
    let orders = lab.ca.orders();
    let outcome = node.look().await;
    assert!(
        matches!(outcome, Outcome::Waiting(_) | Outcome::NoKey),
        "{reason}: {outcome:?}"
    );
    assert_eq!(node.refused(), Some(reason));
    assert_eq!(node.serves(), good, "{reason}");
    assert_eq!(
        lab.ca.orders(),
        orders,
        "{reason}: a bundle that is refused is no reason to order while one serves"
    );
    // A node without a good one does not serve this either, and does not order within the hour.
    let fresh = lab.node("fresh");
    fresh.look().await;
    assert_eq!(fresh.serves(), None, "{reason}");
    assert_eq!(lab.ca.orders(), orders, "{reason}");
}

#[tokio::test]
async fn a_good_bundle_from_elsewhere_is_served() {
    let bundle = material(NAME, SERIAL, -1, 90, false);
    let (_lab, node, good) = with_slot(seal(&bundle, ID, SERIAL)).await;
    node.look().await;
    assert_ne!(node.serves(), good);
    assert_eq!(node.serves().as_deref(), Some(SERIAL));
    assert_eq!(node.refused(), None);
}

#[tokio::test]
async fn a_torn_bundle_is_refused() {
    let whole = seal(&material(NAME, SERIAL, -1, 90, false), ID, SERIAL);
    check(whole[..whole.len() / 2].to_vec(), "unreadable").await;
    check(Vec::new(), "unreadable").await;
}

#[tokio::test]
async fn a_bundle_that_was_swapped_with_another_is_refused() {
    let bundle = material(NAME, SERIAL, -1, 90, false);
    // Sealed for another name, or for another serial, and copied here.
    check(seal(&bundle, "other.example.com/ecdsa", SERIAL), "unreadable").await;
    check(seal(&bundle, ID, "01"), "unreadable").await;
    // Sealed for this place by somebody who has the key, with the wrong certificate inside.
    let other = material(NAME, "0a0a0a0a", -1, 90, false);
    check(seal(&other, ID, SERIAL), "swapped").await;
}

#[tokio::test]
async fn a_bundle_for_foreign_names_is_refused() {
    let bundle = material("other.example.com", SERIAL, -1, 90, false);
    check(seal(&bundle, ID, SERIAL), "foreign").await;
}

#[tokio::test]
async fn an_expired_bundle_and_one_of_the_future_are_refused() {
    check(
        seal(&material(NAME, SERIAL, -90, 80, false), ID, SERIAL),
        "expired",
    )
    .await;
    check(seal(&material(NAME, SERIAL, 2, 80, false), ID, SERIAL), "not-yet").await;
}

#[tokio::test]
async fn a_bundle_whose_key_does_not_fit_is_refused() {
    check(
        seal(&material(NAME, SERIAL, -1, 90, true), ID, SERIAL),
        "mismatched",
    )
    .await;
}

#[tokio::test]
async fn a_bundle_that_is_no_certificate_is_refused() {
    let nonsense = json!({"serial": SERIAL, "not_after": 1, "chain": "hello", "key": "hello"});
    check(seal(&nonsense, ID, SERIAL), "broken").await;
    check(seal(&json!("hello"), ID, SERIAL), "unreadable").await;
}

#[tokio::test]
async fn a_bundle_under_a_key_that_this_node_lacks_is_refused_and_never_ordered_anew() {
    let bundle = material(NAME, SERIAL, -1, 90, false);
    let foreign = Keyring::parse(&hex::encode([9; 32])).unwrap();
    let place = Place::Bundle {
        id: ID,
        serial: SERIAL,
    };
    let sealed = foreign.seal(&place, bundle.to_string().as_bytes()).unwrap();
    check(sealed.clone(), "no-key").await;

    let (lab, _node, _good) = with_slot(sealed).await;
    lab.hand.advance(30 * DAY);
    let fresh = lab.node("fresh");
    assert_eq!(fresh.look().await, Outcome::NoKey);
    assert_eq!(lab.ca.orders(), 1);
    // The operator gives it the key as well.
    let both = lab.node_with("both", |settings| {
        settings.store.keys = Secret(format!("{}\n{}", hex::encode([7; 32]), hex::encode([9; 32])));
    });
    both.look().await;
    assert_eq!(both.serves().as_deref(), Some(SERIAL));
}

#[tokio::test]
async fn a_slot_that_is_no_json_leaves_the_last_good_one_serving() {
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    assert_eq!(node.look().await, Outcome::Issued);
    let good = node.serves();
    put(&lab, &slot_key(ID), b"{\"current\":".to_vec()).await;
    assert!(matches!(node.look().await, Outcome::StoreDown(_)));
    assert_eq!(node.serves(), good);
}

#[tokio::test]
async fn a_copy_on_disk_is_private_and_one_that_was_damaged_is_not_served() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::start().await;
    let node = lab.node("node");
    lab.route_to(&node);
    node.look().await;
    let file = node
        .keeper
        .settings()
        .store
        .state
        .join("cdn.example.com+ecdsa.bundle");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let whole = std::fs::read(&file).unwrap();
    for torn in [&whole[..whole.len() / 2], b"", b"null"] {
        std::fs::write(&file, torn).unwrap();
        assert_eq!(lab.node("node").serves(), None);
    }
    std::fs::write(&file, whole).unwrap();
    assert!(lab.node("node").serves().is_some());
    lab.hand.advance(100 * DAY);
    assert_eq!(lab.node("node").serves(), None, "expired");
}

#[tokio::test]
async fn an_import_serves_everywhere_and_an_export_gives_it_back() {
    let lab = Lab::start().await;
    let (one, other) = (lab.node("one"), lab.node("other"));
    let made = material(NAME, SERIAL, -1, 90, false);
    let text = |member: &str| made[member].as_str().unwrap().to_owned();
    one.keeper.import(NAME, text("chain"), text("key")).await.unwrap();
    other.look().await;
    assert_eq!(other.serves().as_deref(), Some(SERIAL));
    let exported = other.keeper.export(NAME).await.unwrap();
    assert_eq!(exported[0].1.key, text("key"));
    assert_eq!(lab.ca.orders(), 0);
    let foreign = material("other.example.com", SERIAL, -1, 90, false);
    let refused = one
        .keeper
        .import(
            NAME,
            foreign["chain"].as_str().unwrap().into(),
            foreign["key"].as_str().unwrap().into(),
        )
        .await;
    assert!(refused.is_err());
    let listed = one.keeper.list().await.unwrap();
    assert_eq!(listed[0].bundle.as_ref().unwrap().serial, SERIAL);
}
