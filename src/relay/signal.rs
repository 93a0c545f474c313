//! Signals: ephemeral messages that live in a notification and nowhere else.
//!
//! They have no cursor and are never replayed. Whoever can connect to the database can send one,
//! so each is validated again here before any stream sees it.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::channel::ChannelRule;
use crate::event::rfc3339;
use crate::frame::Frame;
use crate::hub::Command;
use crate::hub::{Budget, Queued, ShardHandle};
use crate::metrics::Metrics;
use crate::postgres::Message;
use crate::postgres::bell::CHANNEL;
use crate::topic::{Topic, check_type};

/// Hands signals from the listener to the shards.
pub struct Signals {
    messages: mpsc::Receiver<Message>,
    rules: Vec<ChannelRule>,
    shards: Vec<ShardHandle>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl Signals {
    /// Takes what the listener hears; `rules` say what messages of other channels mean.
    pub fn new(
        messages: mpsc::Receiver<Message>,
        rules: Vec<ChannelRule>,
        shards: Vec<ShardHandle>,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            messages,
            rules,
            shards,
            budget,
            metrics,
        }
    }

    /// Runs until the listener is gone.
    pub async fn run(mut self) {
        while let Some(message) = self.messages.recv().await {
            let (topic, frame) = match self.read(&message) {
                Ok(signal) => signal,
                Err(error) => {
                    self.metrics.signals_refused.inc();
                    tracing::debug!(channel = message.channel, error, "message refused");
                    continue;
                }
            };
            self.metrics.signals_in.inc();
            let queued = Queued::new(frame, Instant::now(), &self.budget);
            for shard in &self.shards {
                let command = Command::Signal(topic.clone(), queued.clone());
                if shard.send(command).await.is_err() {
                    return;
                }
            }
        }
    }

    fn read(&self, message: &Message) -> Result<(Topic, Frame), String> {
        if message.channel == CHANNEL {
            return read_signal(&message.payload);
        }
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.channel() == message.channel);
        let rule = rule.ok_or("no rule for this channel")?;
        let mapped = rule
            .apply(&message.payload)
            .map_err(|error| error.to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = rfc3339(now.map_or(0, |since| since.as_micros() as i64));
        let json = json(&mapped.topic, &mapped.kind, &at, &mapped.data);
        Ok((mapped.topic, Frame::signal(&mapped.kind, &json)))
    }
}

/// What `tidings.signal` puts into a notification.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    signal: bool,
    topic: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    at: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn read_signal(payload: &str) -> Result<(Topic, Frame), String> {
    let payload: Payload<'_> = serde_json::from_str(payload).map_err(|error| error.to_string())?;
    if !payload.signal {
        return Err("not marked as a signal".into());
    }
    let topic = Topic::parse(payload.topic).map_err(|error| error.to_string())?;
    check_type(payload.kind).map_err(|error| error.to_string())?;
    let at: jiff::Timestamp = payload
        .at
        .parse()
        .map_err(|_| "`at` is not a time".to_owned())?;
    let at = rfc3339(at.as_microsecond());
    // JSON may hold line breaks, only between its tokens; an SSE line may not.
    let data = payload.data.get().replace(['\r', '\n'], " ");
    let json = json(&topic, payload.kind, &at, &data);
    Ok((topic, Frame::signal(payload.kind, &json)))
}

/// A signal as clients see it; nothing in topic, type or time needs escaping.
fn json(topic: &Topic, kind: &str, at: &str, data: &str) -> String {
    format!(
        "{{\"signal\":true,\"topic\":\"{topic}\",\"type\":\"{kind}\",\"at\":\"{at}\",\"data\":{data}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_validated_again() {
        let good = r#"{"signal":true,"topic":"user:1","type":"typing","at":"2026-11-20T14:28:00.1Z","data":{"a":
            1}}"#;
        let (topic, frame) = read_signal(good).expect("valid");
        assert_eq!(topic.as_str(), "user:1");
        assert_eq!(
            frame.parts(false).concat(),
            b"data: {\"signal\":true,\"topic\":\"user:1\",\"type\":\"typing\",\"at\":\"2026-11-20T14:28:00.100000Z\",\"data\":{\"a\":             1}}\n\n"
        );
        for (from, to) in [
            ("true", "false"),
            ("user:1", "user 1"),
            ("typing", "tidings.bye"),
            ("typing", "a\\nb"),
            ("2026-11-20T14", "x"),
            ("\"data\"", "\"more\""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(read_signal(&bad).is_err(), "{bad}");
        }
    }
}
