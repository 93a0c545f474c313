//! The variants: each is a table, or a function, in a schema of its own, and what it is compared with.

/// Something to publish by.
pub(crate) struct Variant {
    /// Its schema, too.
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    /// What makes it, one after the other. A variant that makes no table writes `tidings.event`.
    pub(crate) made_by: &'static [&'static str],
    /// What a writer does, for pgbench.
    pub(crate) script: &'static str,
    /// The variant that it differs from in one thing.
    pub(crate) beside: &'static str,
    /// Nobody is awake meanwhile.
    pub(crate) asleep: bool,
    /// Each event notifies, and not none.
    pub(crate) notifies: bool,
}

impl Variant {
    /// A table that rows are inserted into.
    const fn table(
        name: &'static str,
        beside: &'static str,
        words: &'static str,
        made_by: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            words,
            made_by,
            script: include_str!("sql/insert.sql"),
            beside,
            asleep: false,
            notifies: false,
        }
    }

    /// A function that is called for each event.
    const fn function(
        name: &'static str,
        beside: &'static str,
        words: &'static str,
        made_by: &'static [&'static str],
    ) -> Self {
        Self {
            script: include_str!("sql/publish.sql"),
            ..Self::table(name, beside, words, made_by)
        }
    }
}

/// A table of variants, and its title.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) variants: &'static [Variant],
}

pub(crate) static GROUPS: [Group; 3] = [
    Group {
        title: "INSERT, one layer at a time",
        variants: LAYERS,
    },
    Group {
        title: "INSERT, what was tried instead",
        variants: TRIED,
    },
    Group {
        title: "Functions",
        variants: FUNCTIONS,
    },
];

/// Every variant, in the order of the tables.
pub(crate) fn all() -> impl Iterator<Item = &'static Variant> {
    GROUPS.iter().flat_map(|group| group.variants)
}

const PLAIN: &str = include_str!("sql/plain.sql");
const DAYS: &str = include_str!("sql/days.sql");
const LEAVES: &str = include_str!("sql/leaves.sql");
const INDEX_XID: &str = include_str!("sql/index_xid.sql");
const INDEX_TOPIC: &str = include_str!("sql/index_topic.sql");
const TRIGGER: &str = include_str!("sql/trigger.sql");

const LAYERS: &[Variant] = &[
    Variant::table(
        "plain",
        "plain",
        "identity, topic, type, data, time",
        &[PLAIN],
    ),
    Variant {
        notifies: true,
        ..Variant::table(
            "notify",
            "plain",
            "the usual trigger, which notifies of each row",
            &[PLAIN, include_str!("sql/notify.sql")],
        )
    },
    Variant::table(
        "ids",
        "plain",
        "a sequence of its own, and a column for the transaction",
        &[include_str!("sql/ids.sql")],
    ),
    Variant::table(
        "days",
        "ids",
        "partitioned by day, the time in the primary key",
        &[DAYS, LEAVES],
    ),
    Variant::table(
        "by_xid",
        "days",
        "index of transactions",
        &[DAYS, LEAVES, INDEX_XID],
    ),
    Variant::table(
        "by_topic",
        "by_xid",
        "index of topics",
        &[DAYS, LEAVES, INDEX_XID, INDEX_TOPIC],
    ),
    Variant::table(
        "domains",
        "by_topic",
        "domains for what may be in the columns",
        &[
            DAYS,
            LEAVES,
            INDEX_XID,
            INDEX_TOPIC,
            include_str!("sql/domains.sql"),
        ],
    ),
    Variant::table(
        "event",
        "domains",
        "`tidings.event` itself: the bell on the default of a column",
        &[],
    ),
];

const TRIED: &[Variant] = &[
    Variant::table(
        "by_language",
        "by_topic",
        "topics in the order of a language (`und-x-icu`)",
        &[
            DAYS,
            LEAVES,
            INDEX_XID,
            include_str!("sql/index_topic_language.sql"),
        ],
    ),
    Variant::table(
        "roomy",
        "by_topic",
        "fill factor 70 for the index of topics",
        &[
            DAYS,
            LEAVES,
            INDEX_XID,
            include_str!("sql/index_topic_roomy.sql"),
        ],
    ),
    Variant::table(
        "checks",
        "by_topic",
        "constraints of the table, not domains",
        &[
            DAYS,
            LEAVES,
            INDEX_XID,
            INDEX_TOPIC,
            include_str!("sql/checks.sql"),
        ],
    ),
    Variant::table(
        "letters",
        "by_topic",
        "domains with `ltrim`, not regular expressions",
        &[
            DAYS,
            LEAVES,
            INDEX_XID,
            INDEX_TOPIC,
            include_str!("sql/domains_letters.sql"),
        ],
    ),
    Variant::table(
        "generated",
        "by_topic",
        "the size of the data as a generated column",
        &[
            DAYS,
            LEAVES,
            INDEX_XID,
            INDEX_TOPIC,
            include_str!("sql/generated.sql"),
        ],
    ),
    Variant::table(
        "trigger",
        "by_topic",
        "the bell as a trigger with a condition",
        &[DAYS, LEAVES, INDEX_XID, INDEX_TOPIC, TRIGGER],
    ),
];

const FUNCTIONS: &[Variant] = &[
    Variant::function("publish", "event", "`tidings.publish` as it is", &[]),
    Variant::function(
        "path",
        "publish",
        "the same, setting a `search_path`",
        &[include_str!("sql/publish_path.sql")],
    ),
    Variant::function(
        "atomic",
        "publish",
        "in SQL, with a body that is parsed beforehand",
        &[include_str!("sql/publish_atomic.sql")],
    ),
    Variant::function(
        "was",
        "publish",
        "table and function as they were: constraints, generated column, trigger, refusals first",
        &[
            include_str!("sql/was.sql"),
            LEAVES,
            INDEX_XID,
            INDEX_TOPIC,
            TRIGGER,
        ],
    ),
    Variant {
        script: include_str!("sql/publish_once.sql"),
        ..Variant::function("once", "publish", "`tidings.publish` with a new key", &[])
    },
    Variant {
        asleep: true,
        notifies: true,
        ..Variant::function(
            "bell",
            "publish",
            "`tidings.publish` while nobody is awake: each rings",
            &[],
        )
    },
];
