//! The configuration as an operator meets it.

use clap::builder::Resettable;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const KIB: usize = 1 << 10;
const SECRET: &str = "k3uF0h7vQm1xYt9Zr2Lc8Wb5Ns6Pj4Dg";

fn command() -> clap::Command {
    ServeArgs::augment_args(clap::Command::new("tidings"))
}

/// Reads flags without the environment, whatever the tests are run in.
fn read(flags: &[&str]) -> Result<Config, Faults> {
    let line = std::iter::once("tidings").chain(flags.iter().copied());
    let deaf = command().mut_args(|arg| arg.env(Resettable::Reset));
    let matches = deaf.try_get_matches_from(line).unwrap();
    ServeArgs::from_arg_matches(&matches).unwrap().into_config()
}

/// With what every configuration needs.
fn read_with(flags: &[&str]) -> Result<Config, Faults> {
    let needed = [
        "--database-url=postgres://localhost/x",
        "--jwt-secret",
        SECRET,
    ];
    read(&[&needed, flags].concat())
}

fn faults(flags: &[&str]) -> Vec<String> {
    read_with(flags).unwrap_err().lines().to_vec()
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let config = read_with(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.ops_listen.to_string(), "127.0.0.1:9180");
    assert_eq!(config.retention, 7 * DAY);
    assert_eq!(config.awake, Some(100));
    assert_eq!(config.migrate, MigrateMode::Auto);
    assert!(config.limits.streams >= 16);
    let expected = Limits {
        streams_per_user: 20,
        anonymous_per_address: 100,
        streams: config.limits.streams,
        h2_streams: 100,
        stream_age: None,
        topics_per_stream: 50,
        stream_queue_bytes: 512 * KIB,
        queue_bytes: 256 << 20,
        write_timeout: 10 * SECOND,
        head_timeout: 10 * SECOND,
        head_bytes: 16 * KIB,
        body_bytes: 512 * KIB,
        sync_page: 1000,
        pool_size: 8,
        pool_wait: SECOND,
        statement_timeout: 5 * SECOND,
        replay: 1000,
        window_bytes: 64 << 20,
        drain: 20 * SECOND,
        heartbeat: 20 * SECOND,
    };
    assert_eq!(config.limits, expected);
}

#[test]
fn what_is_given_is_taken() {
    let config = read_with(&[
        "--listen=[::]:80",
        "--ops-listen=0.0.0.0:81",
        "--cors-origins=https://a.test, https://b.test",
        "--trusted-proxies=10.0.0.0/8 fd00::/8,192.0.2.7",
        "--public-topics=news,public:*",
        "--channels=orders -> orders/{id}\ncache -> cache cleared",
        "--stream-age=2h",
        "--streams=5",
        "--retention=30 days",
        "--migrate=check",
        "--tenants=required",
        "--cookie=session",
        "--jwt-algorithm=HS256",
        "--direct=off",
        "--awake=off",
    ])
    .unwrap();
    assert_eq!(config.listen.to_string(), "[::]:80");
    assert!(!config.direct);
    assert_eq!(config.awake, None);
    assert!(config.cors_origins.allow("https://b.test"));
    assert!(config.auth.origins.allow("https://a.test"));
    let proxies: Vec<_> = config
        .trusted_proxies
        .iter()
        .map(IpNet::to_string)
        .collect();
    assert_eq!(proxies, ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]);
    assert_eq!(config.auth.public_topics.len(), 2);
    assert_eq!(config.channels.len(), 2);
    assert_eq!(config.limits.stream_age, Some(2 * HOUR));
    assert_eq!(config.limits.streams, 5);
    assert_eq!(config.retention, 30 * DAY);
    assert_eq!(config.migrate, MigrateMode::Check);
    assert!(config.auth.tenants_required);
    assert_eq!(config.auth.cookie.as_deref(), Some("session"));
}

#[test]
fn all_faults_come_together_and_reveal_no_secret() {
    let faults = read(&[
        "--jwt-secret=changeme-hush-hush",
        "--listen=8080",
        "--ops-listen=localhost:9180",
        "--cors-origins=*,https://a.test/",
        "--trusted-proxies=10.0.0.0/8,10.0.0.0/33,proxy",
        "--public-topics=a*b",
        "--channels=a b",
        "--retention=7",
        "--migrate=yes",
        "--tenants=maybe",
        "--cookie=a b",
        "--claim-topics=topics",
        "--streams-per-user=0",
        "--queue-bytes=lots",
        "--heartbeat=-20s",
        "--pool-size=1",
        "--replay=1.5",
    ])
    .unwrap_err();
    let text = faults.to_string();
    for name in [
        "DATABASE_URL",
        "TIDINGS_JWT_SECRET",
        "TIDINGS_LISTEN",
        "TIDINGS_OPS_LISTEN",
        "TIDINGS_CORS_ORIGINS",
        "TIDINGS_TRUSTED_PROXIES",
        "TIDINGS_PUBLIC_TOPICS",
        "TIDINGS_CHANNELS",
        "TIDINGS_RETENTION",
        "TIDINGS_MIGRATE",
        "TIDINGS_TENANTS",
        "TIDINGS_STREAMS_PER_USER",
        "TIDINGS_QUEUE_BYTES",
        "TIDINGS_HEARTBEAT",
        "TIDINGS_POOL_SIZE",
        "TIDINGS_REPLAY",
        "cookie",
        "pointer",
    ] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
    assert!(
        text.starts_with("the configuration has 20 faults:\n"),
        "{text}"
    );
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn there_is_one_key_and_it_is_what_was_expected() {
    let without = ["--database-url=postgres://localhost/x"];
    assert!(
        read(&without)
            .unwrap_err()
            .to_string()
            .contains("nobody could read")
    );
    assert!(read(&[without[0], "--public-topics=news"]).is_ok());
    assert!(faults(&["--jwt-public-key=nonsense"])[0].starts_with("TIDINGS_JWT_PUBLIC_KEY: "));
    assert!(faults(&["--jwt-algorithm=RS256"])[0].contains("the key is for HS256"));
    assert!(faults(&["--jwt-algorithm=none"])[0].contains("TIDINGS_JWT_ALGORITHM"));
}

#[test]
fn secrets_may_stand_in_files() {
    let directory = std::env::temp_dir().join(format!("tidings-config-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let url = format!(
        "--database-url-file={}",
        file("url", "postgres://localhost/y\n")
    );
    let secret = format!(
        "--jwt-secret-file={}",
        file("secret", &format!("{SECRET}\r\n"))
    );
    let empty = format!("--jwt-secret-file={}", file("empty", "\n"));
    let config = read(&[&url, &secret]).unwrap();
    let jwks = format!("--jwt-jwks-file={}", file("jwks", r#"{"keys":[]}"#));
    assert_eq!(config.database_url, "postgres://localhost/y");
    assert_eq!(config.auth.keys.unwrap().algorithms(), ["HS256"]);
    assert!(!format!("{:?}", read(&[&url, &secret]).unwrap()).contains("localhost/y"));
    assert!(
        read(&[&url, &empty])
            .unwrap_err()
            .to_string()
            .contains("is empty")
    );
    assert!(
        read(&[&url, &jwks])
            .unwrap_err()
            .to_string()
            .contains("TIDINGS_JWT_JWKS_FILE: ")
    );
    assert!(faults(&[&secret])[0].contains("as a value and as a file"));
    let unset = read(&["--database-url=", &secret]).unwrap_err();
    assert!(
        unset.lines()[0].starts_with("DATABASE_URL: it is not set"),
        "{unset}"
    );
    fs::remove_dir_all(&directory).unwrap();
    assert!(
        read(&[&url, &secret])
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn budgets_fit_into_each_other() {
    let both = ["--queue-bytes=1MiB", "--stream-queue-bytes=2MiB"];
    assert!(faults(&both)[0].starts_with("TIDINGS_STREAM_QUEUE_BYTES"));
    let same = ["--listen=127.0.0.1:80", "--ops-listen=127.0.0.1:80"];
    assert!(faults(&same)[0].starts_with("TIDINGS_OPS_LISTEN"));
    assert!(read_with(&["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"]).is_ok());
}

#[test]
fn every_flag_has_its_variable_and_no_secret_is_shown() {
    for arg in command().get_arguments() {
        let flag = arg.get_long().unwrap();
        let variable = arg.get_env().unwrap().to_str().unwrap();
        let name = variable.strip_prefix("TIDINGS_").unwrap_or(variable);
        assert_eq!(name.to_lowercase().replace('_', "-"), flag);
        assert!(
            name != variable || variable.starts_with("DATABASE_URL"),
            "{variable}"
        );
        let secret = matches!(flag, "database-url" | "jwt-secret");
        assert_eq!(arg.is_hide_env_values_set(), secret, "{flag}");
        assert!(arg.get_help().is_some(), "{flag}");
    }
}

#[test]
fn a_program_may_give_flags_too() {
    let retention = |flags: &[&str]| {
        let needed = [
            "--database-url=postgres://localhost/x",
            "--public-topics=news",
        ];
        let args = ServeArgs::from_flags(needed.into_iter().chain(flags.iter().copied()));
        args.unwrap().into_config().unwrap().retention
    };
    assert_eq!(retention(&["--retention=3 days"]), 3 * DAY);
    assert!(ServeArgs::from_flags(["--no-such-flag"]).is_err());
}
