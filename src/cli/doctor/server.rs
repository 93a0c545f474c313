//! What the server is and how it is set.

use tokio_postgres::{Client, Error};

use super::{Finding, Weight};

/// The oldest server that has what tidings rests on.
const OLDEST: i32 = 150_000;

/// What was read of the server.
pub(super) struct Server {
    version_num: i32,
    version: String,
    database: String,
    user: String,
    standby: bool,
    fsync: bool,
    full_page_writes: bool,
    autovacuum: bool,
    /// Tables of tidings that autovacuum leaves out.
    unvacuumed: Vec<String>,
    /// For whom commits are not waited for.
    asynchronous: Vec<String>,
    /// How full the queue of notifications is, and who keeps it from being emptied.
    notify_queue: f64,
    oldest: Option<String>,
}

/// How full the queue may be. Whoever listens empties it at once, so that it is empty at all times; and
/// a hundredth of it is 80 MB by default.
const QUEUE_MAX: f64 = 0.01;

impl Server {
    /// Reads what there is to know.
    pub(super) async fn read(session: &Client) -> Result<Self, Error> {
        let row = session.query_typed_one(SETTINGS, &[]).await?;
        let notify_queue = row.get("notify_queue");
        let mut asynchronous: Vec<String> = Vec::new();
        if !row.get::<_, bool>("waits_for_commits") {
            asynchronous.push("the gateway's role".into());
        }
        let defaults = session.query_typed(ASYNCHRONOUS, &[]).await?;
        asynchronous.extend(defaults.iter().map(|row| row.get::<_, String>(0)));
        let unvacuumed = session.query_typed(UNVACUUMED, &[]).await?;
        let oldest = session.query_typed_opt(OLDEST_TRANSACTION, &[]).await?;
        Ok(Self {
            version_num: row.get("version_num"),
            version: row.get("version"),
            database: row.get("database"),
            user: row.get("user"),
            standby: row.get("standby"),
            fsync: row.get("fsync"),
            full_page_writes: row.get("full_page_writes"),
            autovacuum: row.get("autovacuum"),
            unvacuumed: unvacuumed.iter().map(|row| row.get(0)).collect(),
            asynchronous,
            notify_queue,
            oldest: oldest.map(|row| row.get(0)),
        })
    }

    /// What is examined, in one line.
    pub(super) fn introduce(&self) -> String {
        let Self {
            version,
            database,
            user,
            ..
        } = self;
        format!("PostgreSQL {version}, database {database}, as {user}")
    }

    pub(super) fn is_standby(&self) -> bool {
        self.standby
    }

    pub(super) fn is_too_old(&self) -> bool {
        self.version_num < OLDEST
    }

    /// What hurts of it.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let found = [
            self.age(),
            self.role(),
            self.durability(),
            self.pages(),
            self.commits(),
            self.vacuum(),
            self.queue(),
        ];
        found.into_iter().flatten().collect()
    }

    fn age(&self) -> Option<Finding> {
        self.is_too_old().then(|| Finding {
            name: "server-version",
            weight: Weight::Breaks,
            what: format!("this is PostgreSQL {}", self.version),
            why: "the schema of tidings uses what came with PostgreSQL 15",
            mend: "upgrade the server to PostgreSQL 15 or newer; cursors survive pg_upgrade".into(),
        })
    }

    fn role(&self) -> Option<Finding> {
        self.standby.then(|| Finding {
            name: "standby",
            weight: Weight::Breaks,
            what: "this server is a standby (pg_is_in_recovery)".into(),
            why: "a snapshot that is read on a standby lacks running transactions, so that events would \
                  be lost; the gateway refuses it",
            mend: "point DATABASE_URL at the primary, by a name or address that follows a failover".into(),
        })
    }

    fn durability(&self) -> Option<Finding> {
        (!self.fsync).then(|| Finding {
            name: "fsync",
            weight: Weight::Breaks,
            what: "fsync is off".into(),
            why: "a crash of the machine corrupts the database, the log of events with it",
            mend: "alter system set fsync = on; select pg_reload_conf(); then take a new backup"
                .into(),
        })
    }

    fn pages(&self) -> Option<Finding> {
        (!self.full_page_writes).then(|| Finding {
            name: "full-page-writes",
            weight: Weight::Breaks,
            what: "full_page_writes is off".into(),
            why: "a page that was written by half when the machine crashed cannot be recovered",
            mend: "alter system set full_page_writes = on; select pg_reload_conf(); unless the file system \
                   writes pages of 8 KiB whole or not at all"
                .into(),
        })
    }

    fn commits(&self) -> Option<Finding> {
        (!self.asynchronous.is_empty()).then(|| Finding {
            name: "synchronous-commit",
            weight: Weight::Hurts,
            what: format!(
                "synchronous_commit is off for {}",
                super::some(&self.asynchronous)
            ),
            why: "a crash loses commits of the last moment that clients have already seen: their cursors then \
                  get reset{diverged} and they fetch their state anew",
            mend: "alter system reset synchronous_commit, alter role … reset synchronous_commit, alter database … \
                   reset synchronous_commit; whoever can afford to lose a commit turns it off in that transaction"
                .into(),
        })
    }

    fn vacuum(&self) -> Option<Finding> {
        let what = match (self.autovacuum, self.unvacuumed.is_empty()) {
            (false, _) => "autovacuum or track_counts is off".into(),
            (true, false) => format!("autovacuum leaves out {}", super::some(&self.unvacuumed)),
            (true, true) => return None,
        };
        Some(Finding {
            name: "autovacuum",
            weight: Weight::Hurts,
            what,
            why: "keys that were forgotten leave dead rows behind, statistics grow old, so that looks take bad \
                  plans, and in the end the server stops to prevent the wraparound of transaction ids",
            mend: "alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf(); \
                   and alter table … reset (autovacuum_enabled)"
                .into(),
        })
    }

    fn queue(&self) -> Option<Finding> {
        let culprit = match &self.oldest {
            Some(session) => format!("the oldest open transaction is that of {session}"),
            None => "no transaction is open: a process that listens does not read".into(),
        };
        (self.notify_queue > QUEUE_MAX).then(|| Finding {
            name: "notify-queue",
            weight: Weight::Hurts,
            what: format!(
                "the queue of notifications is {:.1} % full; {culprit}",
                self.notify_queue * 100.0
            ),
            why: "a session that listens and stays in a transaction keeps the notifications of the whole server; \
                  when the queue is full, every transaction that notifies fails at its commit",
            mend: "end that transaction (select pg_terminate_backend(pid)), and have whatever listens do so outside \
                   of transactions"
                .into(),
        })
    }
}

const SETTINGS: &str = "
    select current_setting('server_version_num')::integer as version_num,
           current_setting('server_version') as version,
           current_database()::text as database, current_user::text as user,
           pg_is_in_recovery() as standby,
           current_setting('fsync')::boolean as fsync,
           current_setting('full_page_writes')::boolean as full_page_writes,
           current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean as autovacuum,
           current_setting('synchronous_commit') <> 'off' as waits_for_commits,
           case when pg_is_in_recovery() then 0 else pg_notification_queue_usage() end as notify_queue";

/// Defaults of others, which publish: of roles and databases. Values stand as they were written.
const ASYNCHRONOUS: &str = "
    select concat_ws(' in ',
               coalesce('role ' || r.rolname, 'every role'),
               case when s.setdatabase <> 0 then 'this database' end)
    from pg_db_role_setting s
    left join pg_roles r on r.oid = s.setrole
    where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
      and exists (select from unnest(s.setconfig) c where c ~* '^synchronous_commit=(off|false|no|0)$')
    order by 1";

const UNVACUUMED: &str = "
    select c.relname::text
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'tidings'
      and exists (select from unnest(c.reloptions) o where o ~* '^autovacuum_enabled=(off|false|no|0)$')
    order by 1";

const OLDEST_TRANSACTION: &str = "
    select format('process %s (%s) in database %s', pid, coalesce(nullif(application_name, ''), 'without a name'), datname)
    from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid() and xact_start is not null
    order by xact_start
    limit 1";

#[cfg(test)]
mod tests {
    use super::*;

    /// No such server is to be had where the tests run.
    #[test]
    fn a_server_before_15_is_too_old() {
        let mut server = Server {
            version_num: 150_000,
            version: "15.0".into(),
            database: String::new(),
            user: String::new(),
            standby: false,
            fsync: true,
            full_page_writes: true,
            autovacuum: true,
            unvacuumed: Vec::new(),
            asynchronous: Vec::new(),
            notify_queue: 0.0,
            oldest: None,
        };
        assert!(server.findings().is_empty());
        server.version_num = 140_019;
        server.version = "14.19".into();
        let findings = server.findings();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].name, "server-version");
        assert_eq!(findings[0].weight, Weight::Breaks);
        assert!(findings[0].what.contains("14.19"));
    }
}
