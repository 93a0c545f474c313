//! The keys that tokens are checked with: one secret, one public key, or a set of them.
//!
//! The algorithm belongs to the key and never to the token, so a token cannot choose how it is
//! checked. A key that could never verify anything, or that anyone can guess, is refused when the
//! configuration is read and not when the first user is turned away.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// The shortest secret in bytes: as long as the SHA-256 that HS256 rests on (RFC 7518, 3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// NIST SP 800-131A ends shorter RSA keys, and the library would refuse every signature by one.
const RSA_BYTES_MIN: usize = 2048 / 8;
/// A set is read once; more keys than this are not a rotation but a mistake.
const SET_KEYS_MAX: usize = 64;

/// What people write where a secret should be, in lower case and without punctuation.
const PLACEHOLDERS: [&str; 14] = [
    "changeme",
    "changethis",
    "placeholder",
    "replaceme",
    "replacethis",
    "your256bitsecret",
    "yoursecret",
    "mysecret",
    "supersecret",
    "jwtsecret",
    "secretkey",
    "secretsecret",
    "password",
    "example",
];

/// One key with the only algorithm that it serves.
#[derive(Clone)]
pub(crate) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Key {
    /// The algorithm as a token's header must name it.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            _ => "EdDSA",
        }
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(crate) fn verifies(&self, message: &str, signature: &str) -> bool {
        jsonwebtoken::crypto::verify(
            signature,
            message.as_bytes(),
            &self.decoding,
            self.algorithm,
        )
        .unwrap_or(false)
    }
}

/// The keys of a gateway, all from one source.
#[derive(Clone)]
pub struct Keys {
    keys: Vec<Key>,
    /// Whether these are public keys of an issuer that signs for others too: then the audience of
    /// a token says whether it was meant for us.
    public: bool,
    /// Whether a token must name its key: so it is in a set, unless that has a single key.
    by_kid: bool,
}

impl Keys {
    /// HS256 with a shared secret.
    pub fn secret(secret: &str) -> Result<Keys, String> {
        check_secret(secret)?;
        Ok(Keys {
            keys: vec![Key {
                kid: None,
                algorithm: Algorithm::HS256,
                decoding: DecodingKey::from_secret(secret.as_bytes()),
            }],
            public: false,
            by_kid: false,
        })
    }

    /// One public key as PEM; its kind decides between RS256, ES256 and EdDSA.
    pub fn pem(pem: &str) -> Result<Keys, String> {
        // A PEM passed on one line, as some ways of setting an environment do.
        let pem = pem.replace("\\n", "\n");
        if pem.contains("PRIVATE KEY") {
            return Err(
                "this is a private key, which the gateway must not have: give it the \
                        public one (openssl pkey -in key.pem -pubout)"
                    .into(),
            );
        }
        if pem.contains("CERTIFICATE") {
            return Err("this is a certificate: give its public key \
                        (openssl x509 -in certificate.pem -pubkey -noout)"
                .into());
        }
        let bytes = pem.as_bytes();
        let (algorithm, decoding) = if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
            (Algorithm::RS256, key)
        } else if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
            (Algorithm::ES256, key)
        } else if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
            (Algorithm::EdDSA, key)
        } else {
            return Err("this is no public key in PEM of the kinds RSA, P-256 or Ed25519".into());
        };
        let der = decoding.try_get_as_bytes().unwrap_or_default();
        check_public(algorithm, der)?;
        Ok(Keys {
            keys: vec![Key {
                kid: None,
                algorithm,
                decoding,
            }],
            public: true,
            by_kid: false,
        })
    }

    /// The public keys of a JWK Set (RFC 7517), each chosen by its `kid`.
    ///
    /// Keys of other kinds and for other uses are passed over, as the RFC asks for; a set without
    /// any that serves is refused.
    pub fn jwk_set(json: &str) -> Result<Keys, String> {
        let set: JwkSet = serde_json::from_str(json)
            .map_err(|e| format!("this is no JWK Set, which looks like {{\"keys\":[…]}}: {e}"))?;
        if set.keys.len() > SET_KEYS_MAX {
            return Err(format!("a JWK Set has at most {SET_KEYS_MAX} keys here"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for value in set.keys {
            let Ok(jwk) = Jwk::deserialize(value) else {
                continue;
            };
            let Some(key) = jwk.into_key()? else { continue };
            if keys.iter().any(|other| other.kid == key.kid) {
                return Err("two keys of the JWK Set have the same kid, or none".into());
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("the JWK Set has no key for RS256, ES256 or EdDSA signatures".into());
        }
        if keys.len() > 1 && keys.iter().any(|key| key.kid.is_none()) {
            return Err("a key of the JWK Set has no kid, so no token could choose it".into());
        }
        Ok(Keys {
            by_kid: true,
            public: true,
            keys,
        })
    }

    /// The key for a token whose header names `kid`, if there is one.
    pub(crate) fn choose(&self, kid: Option<&str>) -> Option<&Key> {
        match (self.by_kid, kid, &self.keys[..]) {
            // A single key outside a set has no name: what its issuer calls it is of no interest.
            (false, _, [key]) => Some(key),
            (true, None, [only]) => Some(only),
            (true, Some(kid), keys) => keys.iter().find(|key| match &key.kid {
                Some(own) => own == kid,
                None => keys.len() == 1,
            }),
            _ => None,
        }
    }

    /// Whether these are public keys, with which the audience of a token must be checked.
    pub(crate) fn are_public(&self) -> bool {
        self.public
    }

    /// The algorithms in use, for the start-up log and to check what the operator expects.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.keys.iter().map(Key::algorithm).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.algorithms().join(", "))
    }
}

/// Refuses a secret that is short, that is a known placeholder, or that has hardly any variety.
fn check_secret(secret: &str) -> Result<(), String> {
    const HINT: &str = "make one with: openssl rand -base64 48";
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "the secret has {} bytes, {SECRET_BYTES_MIN} are the least: {HINT}",
            secret.len()
        ));
    }
    let plain: String = secret
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if PLACEHOLDERS.iter().any(|word| plain.contains(word)) {
        return Err(format!("the secret is a placeholder: {HINT}"));
    }
    let mut seen = [false; 256];
    secret.bytes().for_each(|b| seen[usize::from(b)] = true);
    let ascending = secret
        .as_bytes()
        .windows(2)
        .filter(|w| w[1] == w[0].wrapping_add(1));
    if seen.iter().filter(|s| **s).count() < 8 || ascending.count() > secret.len() / 2 {
        return Err(format!("the secret can be guessed: {HINT}"));
    }
    Ok(())
}

/// Refuses a public key that the library could never verify a signature with.
fn check_public(algorithm: Algorithm, key: &[u8]) -> Result<(), String> {
    let (parser, kind): (&'static dyn VerificationAlgorithm, _) = match algorithm {
        Algorithm::RS256 => (&signature::RSA_PKCS1_2048_8192_SHA256, "RSA"),
        Algorithm::ES256 => (&signature::ECDSA_P256_SHA256_FIXED, "P-256"),
        _ => (&signature::ED25519, "Ed25519"),
    };
    ParsedPublicKey::new(parser, key).map_err(|_| format!("this is no {kind} public key"))?;
    // The DER of an RSA key is a few bytes longer than its modulus.
    if algorithm == Algorithm::RS256 && key.len() <= RSA_BYTES_MIN {
        return Err("an RSA key has at least 2048 bits".into());
    }
    Ok(())
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// The members of a JSON Web Key that verifying needs (RFC 7518, 6; RFC 8037 for OKP).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    /// The key, or `None` when it is of a kind or for a use that is none of ours.
    fn into_key(self) -> Result<Option<Key>, String> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Algorithm::RS256,
            ("EC", Some("P-256")) => Algorithm::ES256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
            ("oct", _) => {
                return Err("the JWK Set holds a secret key: \
                            give a secret by TIDINGS_JWT_SECRET instead"
                    .into());
            }
            _ => return Ok(None),
        };
        let name = self.kid.as_deref().unwrap_or("without kid");
        if self.d.is_some() {
            return Err(format!("the key {name:?} of the JWK Set is a private one"));
        }
        let for_signatures = self.purpose.as_deref().unwrap_or("sig") == "sig"
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        // RFC 9864 calls EdDSA with this curve Ed25519.
        let same_algorithm = match self.alg.as_deref() {
            None => true,
            Some("RS256") => algorithm == Algorithm::RS256,
            Some("ES256") => algorithm == Algorithm::ES256,
            Some("EdDSA" | "Ed25519") => algorithm == Algorithm::EdDSA,
            Some(_) => false,
        };
        if !for_signatures || !same_algorithm {
            return Ok(None);
        }
        let decoding = match algorithm {
            Algorithm::RS256 => rsa_key(self.n.as_deref(), self.e.as_deref()),
            Algorithm::ES256 => p256_key(self.x.as_deref(), self.y.as_deref()),
            _ => ed25519_key(self.x.as_deref()),
        }
        .map_err(|fault| format!("the key {name:?} of the JWK Set: {fault}"))?;
        Ok(Some(Key {
            kid: self.kid,
            algorithm,
            decoding,
        }))
    }
}

fn rsa_key(modulus: Option<&str>, exponent: Option<&str>) -> Result<DecodingKey, String> {
    let number = |text, name| {
        // Some issuers write the sign byte of DER before the number, which the library refuses.
        let bytes = member(text, name)?;
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        Ok::<_, String>(bytes[zeros..].to_vec())
    };
    let (modulus, exponent) = (number(modulus, "n")?, number(exponent, "e")?);
    if modulus.len() < RSA_BYTES_MIN {
        return Err("an RSA key has at least 2048 bits".into());
    }
    if exponent.is_empty() || exponent.len() > 8 || exponent == [1] {
        return Err("its exponent e is no public exponent".into());
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn p256_key(x: Option<&str>, y: Option<&str>) -> Result<DecodingKey, String> {
    let mut point = vec![4];
    point.extend(member(x, "x")?);
    point.extend(member(y, "y")?);
    check_public(Algorithm::ES256, &point)?;
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519_key(x: Option<&str>) -> Result<DecodingKey, String> {
    let point = member(x, "x")?;
    check_public(Algorithm::EdDSA, &point)?;
    Ok(DecodingKey::from_ed_der(&point))
}

fn member(text: Option<&str>, name: &str) -> Result<Vec<u8>, String> {
    text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or_else(|| format!("its member {name} is missing or no base64url"))
}
