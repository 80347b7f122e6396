//! Structured fields as RFC 9651 reads and writes them.

use proptest::prelude::*;

use super::*;

fn values(lines: &[&str]) -> Vec<HeaderValue> {
    let lines = lines.iter();
    lines
        .map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap())
        .collect()
}

#[test]
fn bare_items() {
    let check = |text: &str, expected: BareItem| {
        let item = Item::parse(&values(&[text])).map(|item| item.value);
        assert_eq!(item, Ok(expected), "{text}");
    };
    check("42", BareItem::Integer(42));
    check("  -0  ", BareItem::Integer(0));
    check("-999999999999999", BareItem::Integer(-999_999_999_999_999));
    check("4.5", BareItem::Decimal(4500));
    check("-0.125", BareItem::Decimal(-125));
    check("999999999999.999", BareItem::Decimal(999_999_999_999_999));
    check("1.01", BareItem::Decimal(1010));
    check(r#""a \"b\\""#, BareItem::String(r#"a "b\"#.into()));
    check("*foo:bar/baz!", BareItem::Token("*foo:bar/baz!".into()));
    check(":aGVsbG8=:", BareItem::Bytes(b"hello".into()));
    check(":aGVsbG8:", BareItem::Bytes(b"hello".into()));
    check("::", BareItem::Bytes(vec![]));
    check(":iZ==:", BareItem::Bytes(vec![0x89]));
    check(":/+Ah:", BareItem::Bytes(vec![0xff, 0xe0, 0x21]));
    check("?1", BareItem::Boolean(true));
    check("?0", BareItem::Boolean(false));
    check("@1659578233", BareItem::Date(1_659_578_233));
    check("@-62135596800", BareItem::Date(-62_135_596_800));
    check(r#"%"f%c3%bc%22 x""#, BareItem::Display("fü\" x".into()));
}

#[test]
fn any_error_fails_the_whole_field() {
    let item = |text: &str| {
        let error = Item::parse(&values(&[text])).map(|item| item.value);
        assert!(matches!(error, Err(Error::Malformed(_))), "{text}: {error:?}");
    };
    for text in [
        "",
        "-",
        "1.",
        ".1",
        "1.1234",
        "1234567890123.1",
        "1000000000000000",
        "--1",
        "1 2",
        "\"a",
        "\"a\\x\"",
        "\"\\",
        "\"a\tb\"",
        "ü",
        "!a",
        ":a:",
        ":aGVsbG8===:",
        ":aGVsbG8==:",
        ":=:",
        ":====:",
        ":a=GV:",
        ":ab\u{e9}:",
        ":_-==:",
        "?2",
        "?",
        "?10",
        "@1.5",
        "@",
        "%\"%C3%BC\"",
        "%\"%c3\"",
        "%\"%g0\"",
        "%a",
        "a;",
        "a; ;b",
        "a;B",
        "a;b=",
        "a ;b",
        "(a)",
        "a\tb",
        "1,2",
    ] {
        item(text);
    }
    for text in [
        "a,", "a,,b", ",a", "a b", "(a", "(a,b)", "(a\tb)", "((a))", "(a\"b\")", "a, (b",
    ] {
        assert!(List::parse(&values(&[text])).is_err(), "{text}");
    }
    for text in [
        "a=", "A=1", "a=1,", "a=1 b=2", "=1", "a,,b", "a =1", "a= 1", "1", "a=(1",
    ] {
        assert!(Dictionary::parse(&values(&[text])).is_err(), "{text}");
    }
}

#[test]
fn what_is_read_is_written_in_one_way() {
    let list = |lines: &[&str], expected: &str| {
        let read = List::parse(&values(lines)).unwrap();
        assert_eq!(read.write().unwrap(), expected, "{lines:?}");
    };
    list(&[], "");
    list(&[""], "");
    list(&["a,b ,\t c"], "a, b, c");
    list(&["a", "b"], "a, b");
    list(&["( a   b );x=?1;y , ()"], "(a b);x;y, ()");
    list(&["a; x=1;x=2; y=?0;x=3.10"], "a;x=3.1;y=?0");
    list(&["2.0, -0.010, :iZ==:"], "2.0, -0.01, :iQ==:");

    let dictionary = |lines: &[&str], expected: &str| {
        let read = Dictionary::parse(&values(lines)).unwrap();
        assert_eq!(read.write().unwrap(), expected, "{lines:?}");
    };
    dictionary(&["a=1,b=2,a=3"], "a=3, b=2");
    dictionary(&["a=?1;x, b=?0", "c=(1 2);y"], "a;x, b=?0, c=(1 2);y");
    dictionary(&["max-age=60, *k_.-9"], "max-age=60, *k_.-9");
}

#[test]
fn a_cache_status_member() {
    let mut item = Item::from(BareItem::Token("portico".into()));
    item.parameters.insert("hit", BareItem::Boolean(true));
    item.parameters.insert("ttl", BareItem::Integer(-12));
    item.parameters
        .insert("detail", BareItem::String("say \"hi\"".into()));
    assert_eq!(
        item.write().unwrap(),
        r#"portico;hit;ttl=-12;detail="say \"hi\"""#
    );
}

#[test]
fn what_cannot_be_written_is_refused() {
    for value in [
        BareItem::Integer(1_000_000_000_000_000),
        BareItem::Integer(i64::MIN),
        BareItem::Decimal(1_000_000_000_000_000),
        BareItem::String("ü".into()),
        BareItem::String("a\r\nb".into()),
        BareItem::Token(String::new()),
        BareItem::Token("a b".into()),
        BareItem::Token("1".into()),
    ] {
        assert_eq!(
            Item::from(value.clone()).write(),
            Err(Error::Unwritable),
            "{value:?}"
        );
    }
    let mut item = Item::from(BareItem::Integer(1));
    item.parameters.insert("Upper", BareItem::Integer(1));
    assert_eq!(item.write(), Err(Error::Unwritable));
}

#[test]
fn too_much_is_refused_and_as_much_as_the_standard_asks_is_not() {
    let list = |count: usize| List::parse(&values(&[&vec!["a"; count].join(",")]));
    assert_eq!(list(MEMBERS_MAX).unwrap().0.len(), MEMBERS_MAX);
    assert_eq!(list(MEMBERS_MAX + 1), Err(Error::TooLarge));
    let keys = |count: usize| (0..count).map(|n| format!("k{n}")).collect::<Vec<_>>();
    let dictionary = |count: usize| Dictionary::parse(&values(&[&keys(count).join(",")]));
    assert!(dictionary(MEMBERS_MAX).is_ok());
    assert_eq!(dictionary(MEMBERS_MAX + 1), Err(Error::TooLarge));
    let item = |count: usize| Item::parse(&values(&[&format!("a;{}", keys(count).join(";"))]));
    assert!(item(PARAMETERS_MAX).is_ok());
    assert_eq!(item(PARAMETERS_MAX + 1), Err(Error::TooLarge));
    let inner = |count: usize| List::parse(&values(&[&format!("({})", vec!["a"; count].join(" "))]));
    assert!(inner(MEMBERS_MAX).is_ok());
    assert_eq!(inner(MEMBERS_MAX + 1), Err(Error::TooLarge));
    let long = "a".repeat(LENGTH_MAX);
    assert!(Item::parse(&values(&[&long])).is_ok());
    assert_eq!(Item::parse(&values(&[&format!("{long}a")])), Err(Error::TooLarge));
    assert_eq!(List::parse(&values(&[&long, "a"])), Err(Error::TooLarge));
}

fn bare_item() -> impl Strategy<Value = BareItem> {
    let number = -999_999_999_999_999..=999_999_999_999_999_i64;
    prop_oneof![
        any::<bool>().prop_map(BareItem::Boolean),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(BareItem::Bytes),
        number.clone().prop_map(BareItem::Date),
        number.clone().prop_map(BareItem::Decimal),
        any::<String>().prop_map(BareItem::Display),
        number.prop_map(BareItem::Integer),
        "[ -~]{0,12}".prop_map(BareItem::String),
        "[a-zA-Z*][a-z!#:/0-9]{0,8}".prop_map(BareItem::Token),
    ]
}

fn map<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Map<T>> {
    prop::collection::vec(("[a-c*][a-c0-9_.*-]{0,2}", value), 0..4).prop_map(|pairs| {
        let mut map = Map::default();
        for (key, value) in pairs {
            map.insert(&key, value);
        }
        map
    })
}

fn item() -> impl Strategy<Value = Item> {
    (bare_item(), map(bare_item())).prop_map(|(value, parameters)| Item { value, parameters })
}

fn member() -> impl Strategy<Value = Member> {
    let inner = (prop::collection::vec(item(), 0..4), map(bare_item()));
    prop_oneof![
        item().prop_map(Member::Item),
        inner.prop_map(|(items, parameters)| Member::InnerList(InnerList { items, parameters })),
    ]
}

proptest! {
    #[test]
    fn items_lists_and_dictionaries_are_read_back_as_written(
        item in item(),
        list in prop::collection::vec(member(), 0..4).prop_map(List),
        dictionary in map(member()).prop_map(Dictionary),
    ) {
        prop_assert_eq!(Item::parse(&values(&[&item.write().unwrap()])), Ok(item));
        prop_assert_eq!(List::parse(&values(&[&list.write().unwrap()])), Ok(list));
        prop_assert_eq!(Dictionary::parse(&values(&[&dictionary.write().unwrap()])), Ok(dictionary));
    }

    #[test]
    fn nothing_read_panics_and_what_is_accepted_can_be_written(text in "[ -~\t]{0,24}|[a1\"(;=,:?@% ]{0,16}") {
        let lines = values(&[&text]);
        if let Ok(item) = Item::parse(&lines) {
            prop_assert!(item.write().is_ok());
        }
        if let Ok(list) = List::parse(&lines) {
            prop_assert_eq!(List::parse(&values(&[&list.write().unwrap()])), Ok(list));
        }
        if let Ok(dictionary) = Dictionary::parse(&lines) {
            prop_assert!(dictionary.write().is_ok());
        }
    }
}
