//! The kinds of writers that are compared.

/// What a commit tells, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nobody.
    Plain,
    /// A listener, by a trigger that notifies it of each row.
    Notify,
    /// A gateway that hears a bell for each commit.
    PublishIdle,
    /// A gateway as it comes, which may become awake.
    Publish,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Notify, Self::PublishIdle, Self::Publish];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Notify => "notify",
            Self::PublishIdle => "publish-idle",
            Self::Publish => "publish",
        }
    }

    /// What a writer does, for pgbench.
    pub(crate) fn script(self) -> &'static str {
        match self {
            Self::Plain => include_str!("sql/plain.sql"),
            Self::Notify => include_str!("sql/notify.sql"),
            Self::PublishIdle | Self::Publish => include_str!("sql/publish.sql"),
        }
    }

    /// The newest id of the table that it writes.
    pub(crate) fn newest(self) -> &'static str {
        match self {
            Self::Plain => "select coalesce(max(id), 0) from plain",
            Self::Notify => "select coalesce(max(id), 0) from notify",
            Self::PublishIdle | Self::Publish => "select coalesce(max(id), 0) from tidings.event",
        }
    }

    /// How many rows that table has behind an id.
    pub(crate) fn rows_behind(self) -> &'static str {
        match self {
            Self::Plain => "select count(*) from plain where id > $1",
            Self::Notify => "select count(*) from notify where id > $1",
            Self::PublishIdle | Self::Publish => "select count(*) from tidings.event where id > $1",
        }
    }

    /// The environment of its gateway, if it has one.
    pub(crate) fn gateway(self) -> Option<&'static [(&'static str, &'static str)]> {
        match self {
            Self::Plain | Self::Notify => None,
            Self::PublishIdle => Some(&[("TIDINGS_AWAKE", "off")]),
            Self::Publish => Some(&[]),
        }
    }
}
