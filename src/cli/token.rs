//! `tidings token`: sign a token as the gateway accepts it.
//!
//! For development, tests and jobs of one's own: the same variables that tell a gateway which tokens
//! to accept say here what to put into one. What the gateway would turn away is not signed.

use anyhow::anyhow;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::Failure;
use crate::auth::{Keys, TOKEN_BYTES_MAX};
use crate::config::SecretArgs;
use crate::topic::{Pattern, Topic, check_tenant};

/// Whom the token is for and what it allows.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The token goes to standard output, alone on its line:
  curl -N -H \"Authorization: Bearer $(tidings token --sub 42)\" http://127.0.0.1:8080/v1/events

Exit codes: 0 signed, 64 the command line or the configuration is not usable.")]
pub(super) struct Args {
    /// Whom the token is for; its bearer reads the topic user:SUB, or TENANT/user:SUB
    #[arg(long, value_name = "TEXT")]
    sub: String,

    /// The tenant that the bearer is confined to
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,

    /// A topic to read besides the own one, or a prefix ending in *; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    topics: Vec<Pattern>,

    /// A topic to publish to by POST /v1/events, or a prefix ending in *; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    publish: Vec<Pattern>,

    /// How long the token is valid, such as '90s', '1 hour', '30 days', '1 year'
    #[arg(long, default_value = "1 hour", value_name = "TIME")]
    expires_in: Span,

    #[command(flatten)]
    signing: SigningArgs,
}

/// With what tokens are signed, and how their claims are called. The variables are the gateway's.
#[derive(Debug, clap::Args)]
pub(super) struct SigningArgs {
    #[command(flatten)]
    secret: SecretArgs,

    /// The audience that the token names (aud)
    #[arg(long, env = "TIDINGS_JWT_AUDIENCE", value_name = "TEXT")]
    #[arg(help_heading = "Tokens")]
    audience: Option<String>,

    /// The issuer that the token names (iss)
    #[arg(long, env = "TIDINGS_JWT_ISSUER", value_name = "TEXT")]
    #[arg(help_heading = "Tokens")]
    issuer: Option<String>,

    /// Whether the gateway accepts tokens without a tenant (optional) or not (required)
    #[arg(
        long,
        env = "TIDINGS_TENANTS",
        default_value = "optional",
        value_parser = ["optional", "required"],
        value_name = "MODE"
    )]
    #[arg(help_heading = "Tokens")]
    tenants: String,

    /// Where in a token the readable topics stand, as a JSON pointer
    #[arg(
        long,
        env = "TIDINGS_CLAIM_TOPICS",
        default_value = "/topics",
        value_name = "POINTER"
    )]
    #[arg(help_heading = "Tokens")]
    claim_topics: String,

    /// Where in a token the topics to publish to stand
    #[arg(
        long,
        env = "TIDINGS_CLAIM_PUBLISH",
        default_value = "/publish",
        value_name = "POINTER"
    )]
    #[arg(help_heading = "Tokens")]
    claim_publish: String,

    /// Where in a token the tenant stands
    #[arg(
        long,
        env = "TIDINGS_CLAIM_TENANT",
        default_value = "/tenant",
        value_name = "POINTER"
    )]
    #[arg(help_heading = "Tokens")]
    claim_tenant: String,
}

/// Who a token is about.
pub(super) struct Bearer<'a> {
    pub(super) sub: &'a str,
    pub(super) tenant: Option<&'a str>,
    pub(super) topics: &'a [Pattern],
    pub(super) publish: &'a [Pattern],
    pub(super) expires_in: Span,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let bearer = Bearer {
        sub: &args.sub,
        tenant: args.tenant.as_deref(),
        topics: &args.topics,
        publish: &args.publish,
        expires_in: args.expires_in,
    };
    let secret = args.signing.secret()?.ok_or_else(no_secret)?;
    println!("{}", args.signing.sign(&secret, &bearer, Timestamp::now())?);
    Ok(())
}

impl SigningArgs {
    /// The secret, if there is one, and it is one that a gateway accepts.
    pub(super) fn secret(&self) -> Result<Option<String>, Failure> {
        let fault = |fault| Failure::Usage(format!("TIDINGS_JWT_SECRET: {fault}"));
        let secret = self.secret.secret().map_err(fault)?;
        if let Some(secret) = &secret {
            Keys::secret(secret).map_err(fault)?;
        }
        Ok(secret)
    }

    /// Whether the gateway turns away tokens without a tenant.
    pub(super) fn tenants_required(&self) -> bool {
        self.tenants == "required"
    }

    /// Signs a token that is valid from `now` on.
    pub(super) fn sign(
        &self,
        secret: &str,
        bearer: &Bearer<'_>,
        now: Timestamp,
    ) -> Result<String, Failure> {
        let claims = self.claims(bearer, now).map_err(Failure::Usage)?;
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key);
        let token = token.map_err(|error| anyhow!("the token cannot be signed: {error}"))?;
        if token.len() > TOKEN_BYTES_MAX {
            let most = format!(
                "the token has {} bytes, and a gateway takes {TOKEN_BYTES_MAX} at most: \
                 name fewer topics, or a prefix of them",
                token.len()
            );
            return Err(Failure::Usage(most));
        }
        Ok(token)
    }

    fn claims(&self, bearer: &Bearer<'_>, now: Timestamp) -> Result<Value, String> {
        if let Some(tenant) = bearer.tenant {
            check_tenant(tenant).map_err(|fault| format!("--tenant {tenant:?}: {fault}"))?;
        } else if self.tenants_required() {
            return Err("TIDINGS_TENANTS is required: name a tenant by --tenant".into());
        }
        Topic::own(bearer.sub, bearer.tenant)
            .map_err(|fault| format!("--sub {:?}: {fault}", bearer.sub))?;
        for (flag, patterns) in [("topics", bearer.topics), ("publish", bearer.publish)] {
            check_reach(flag, patterns, bearer.tenant)?;
        }
        let expires_at = now.to_zoned(TimeZone::UTC).checked_add(bearer.expires_in);
        let expires_at = expires_at.map_err(|_| "--expires-in: that is beyond the calendar")?;
        if expires_at.timestamp() <= now {
            return Err("--expires-in: the token would be expired from the start".into());
        }
        let mut claims = json!({
            "sub": bearer.sub,
            "iat": now.as_second(),
            "exp": expires_at.timestamp().as_second(),
        });
        let named = [("aud", &self.audience), ("iss", &self.issuer)];
        for (name, value) in named {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                claims[name] = json!(value);
            }
        }
        let texts = |patterns: &[Pattern]| {
            let texts: Vec<_> = patterns.iter().map(Pattern::to_string).collect();
            (!texts.is_empty()).then(|| json!(texts))
        };
        for (variable, pointer, value) in [
            (
                "TIDINGS_CLAIM_TENANT",
                &self.claim_tenant,
                bearer.tenant.map(|tenant| json!(tenant)),
            ),
            (
                "TIDINGS_CLAIM_TOPICS",
                &self.claim_topics,
                texts(bearer.topics),
            ),
            (
                "TIDINGS_CLAIM_PUBLISH",
                &self.claim_publish,
                texts(bearer.publish),
            ),
        ] {
            if let Some(value) = value {
                put(&mut claims, pointer, value)
                    .map_err(|fault| format!("{variable}: {pointer:?} {fault}"))?;
            }
        }
        Ok(claims)
    }
}

/// Refuses a pattern that can never cover a topic of the tenant: nobody would miss it until a
/// stream stays silent.
fn check_reach(flag: &str, patterns: &[Pattern], tenant: Option<&str>) -> Result<(), String> {
    let Some(tenant) = tenant else { return Ok(()) };
    let inside = format!("{tenant}/");
    for pattern in patterns {
        let text = pattern.to_string();
        let reaches_in = match text.strip_suffix('*') {
            Some(prefix) => prefix.starts_with(&inside) || inside.starts_with(prefix),
            None => text.starts_with(&inside),
        };
        if !reaches_in {
            return Err(format!(
                "--{flag} {text}: every topic of the tenant {tenant} begins with {inside}"
            ));
        }
    }
    Ok(())
}

/// Puts a value where a JSON pointer (RFC 6901) says, making the objects on the way.
fn put(claims: &mut Value, pointer: &str, value: Value) -> Result<(), &'static str> {
    let path = pointer
        .strip_prefix('/')
        .ok_or("is no JSON pointer to a claim: it begins with a slash, like /topics")?;
    let mut names: Vec<String> = path
        .split('/')
        .map(|name| name.replace("~1", "/").replace("~0", "~"))
        .collect();
    let last = names.pop().expect("splitting gives one part at least");
    let mut place = claims;
    for name in names {
        place = object(place)?
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
    }
    match object(place)?.insert(last, value) {
        None => Ok(()),
        Some(_) => Err("is the place of another claim"),
    }
}

fn object(place: &mut Value) -> Result<&mut Map<String, Value>, &'static str> {
    place
        .as_object_mut()
        .ok_or("leads through another claim, which is no object")
}

/// There is nothing to sign with; when the gateway has public keys, that is no oversight.
fn no_secret() -> Failure {
    let public = [
        "TIDINGS_JWT_PUBLIC_KEY",
        "TIDINGS_JWT_PUBLIC_KEY_FILE",
        "TIDINGS_JWT_JWKS_FILE",
    ];
    let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    Failure::Usage(match public.iter().find(is_set) {
        Some(name) => format!(
            "{name} is a public key, which checks tokens and cannot sign them: have whoever holds \
             its private key sign one"
        ),
        None => "no secret to sign with: set TIDINGS_JWT_SECRET or TIDINGS_JWT_SECRET_FILE to the \
                 gateway's (a new one: openssl rand -base64 48)"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_all(pointers: &[&str]) -> Result<Value, &'static str> {
        let mut claims = json!({"sub": "42"});
        for pointer in pointers {
            put(&mut claims, pointer, json!(pointer))?;
        }
        Ok(claims)
    }

    #[test]
    fn a_value_is_found_where_its_pointer_says() {
        let pointers = ["/topics", "/app/topics", "/app/a~1b~0c", "/"];
        let claims = put_all(&pointers).unwrap();
        for pointer in pointers {
            assert_eq!(claims.pointer(pointer), Some(&json!(pointer)), "{claims}");
        }
    }

    #[test]
    fn claims_never_overwrite_each_other() {
        for pointers in [
            &["/sub"][..],
            &["/topics", "/topics"],
            &["/sub/topics"],
            &["/a/b", "/a"],
            &["topics"],
            &[""],
        ] {
            assert!(put_all(pointers).is_err(), "{pointers:?}");
        }
    }

    #[test]
    fn a_pattern_must_reach_into_its_tenant() {
        let reach = |text| check_reach("topics", &[Pattern::parse(text).unwrap()], Some("acme"));
        for good in ["acme/*", "acme/orders", "a*", "*", "acme*", "acme/o*"] {
            assert_eq!(reach(good), Ok(()), "{good}");
        }
        for bad in ["orders", "acme", "acm", "b*", "acme2/*", "orders/*"] {
            assert!(reach(bad).is_err(), "{bad}");
        }
    }
}
