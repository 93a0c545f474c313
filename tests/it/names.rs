//! Names: a topic that SQL makes of a foreign text is the one that the gateway makes of it.
//!
//! Were they different, a backend would publish where its user does not read, or where another does.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::json;
use tidings::channel::ChannelRule;
use tidings::topic::{Topic, encode};

use crate::sql::run;
use crate::support::postgres::database;

/// Texts of every kind that names are made of, and of kinds that they should not be made of.
fn texts(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let text = "[\u{1}-\u{7f}]{1,20}|\\PC{1,20}|[a-z/%:*]{1,12}|(%[0-9A-Fa-f]{2}|/|%){1,6}|[\u{80}-\u{10ffff}]{1,60}";
    let texts = proptest::collection::vec(text, count..=count);
    let mut texts = texts.new_tree(&mut runner).expect("texts").current();
    let chosen = [
        "a/user:b",
        "x/user:1",
        "%2F",
        "%",
        "a%20b",
        "a b",
        " ",
        "\u{feff}",
        "e\u{301}",
        "\u{e9}",
        "\u{2028}",
        "\u{1F469}\u{200D}\u{1F4BB}",
        "a\r\nb",
        "\u{7f}",
        "*",
        "user:*",
        "'",
        "\"",
        "\\",
        "{a}",
    ];
    texts.extend(chosen.map(String::from));
    texts.extend([1, 83, 84, 85, 250, 251].map(|length| "\u{e9}".repeat(length)));
    texts.extend([249, 250, 251].map(|length| "x".repeat(length)));
    texts
}

#[tokio::test]
async fn the_own_topic_of_a_user_is_the_same_in_sql_and_in_the_gateway() {
    let database = database();
    let client = database.connect().await;
    run(
        &client,
        "create function own(sub text, tenant text) returns text language plpgsql as $$
         begin return tidings.user_topic(sub, tenant); exception when sqlstate '22023' then return null; end $$",
    )
    .await;
    let subs = texts(400);
    let tenants = [
        None,
        Some("acme"),
        Some("a.c:m@e|~%2F"),
        Some(""),
        Some("a/b"),
        Some("\u{e9}"),
        Some("a b"),
    ];
    let (mut same, mut refused) = (0, 0);
    for tenant in tenants {
        let rows = client
            .query(
                "select own(sub, $2) from unnest($1::text[]) with ordinality as t (sub, n) order by n",
                &[&subs, &tenant],
            )
            .await
            .expect("topics");
        for (sub, row) in subs.iter().zip(rows) {
            let own = Topic::own(sub, tenant).ok().map(|topic| topic.to_string());
            assert_eq!(
                row.get::<_, Option<String>>(0),
                own,
                "{sub:?} of {tenant:?}"
            );
            match own {
                Some(_) => same += 1,
                None => refused += 1,
            }
        }
    }
    assert!(same > 500 && refused > 500, "{same} {refused}");
}

#[tokio::test]
async fn watches_and_channels_write_the_same_topic_for_the_same_value() {
    let database = database();
    let client = database.connect().await;
    run(
        &client,
        "create table thing (n int primary key, name text);
         select tidings.watch('thing', 'thing/{name}:{n}', columns => array['n'])",
    )
    .await;
    // What would be too long for a topic is refused by either.
    let names: Vec<String> = texts(400)
        .into_iter()
        .filter(|name| encode(name).len() < 200)
        .collect();
    client
        .execute(
            "insert into thing select n, name from unnest($1::text[]) with ordinality as t (name, n)",
            &[&names],
        )
        .await
        .expect("inserts");
    let rows = client
        .query(
            "select topic, (data ->> 'n')::int from tidings.event order by 2",
            &[],
        )
        .await
        .expect("events");
    assert_eq!(rows.len(), names.len());
    let rule = ChannelRule::parse("things -> thing/{name}:{n} thing.insert").expect("a rule");
    for (name, row) in names.iter().zip(rows) {
        let (topic, n): (String, i32) = (row.get(0), row.get(1));
        let mapped = rule.apply(&json!({"name": name, "n": n}).to_string());
        let mapped = mapped.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(topic, mapped.topic.as_str(), "{name:?}");
        assert_eq!(topic, format!("thing/{}:{n}", encode(name)));
    }
}
