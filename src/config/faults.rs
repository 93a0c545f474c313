//! The faults of a configuration, collected while it is read.

use std::fmt;
use std::time::Duration;

use super::units;

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<String>);

impl Faults {
    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    pub(super) fn add(&mut self, name: &str, fault: &str) {
        self.0.push(format!("{name}: {fault}"));
    }

    /// The value, or a stand-in that nobody sees, since a fault is noted.
    pub(super) fn take<T>(&mut self, name: &str, value: Result<T, String>, stand_in: T) -> T {
        value.unwrap_or_else(|fault| {
            self.add(name, &fault);
            stand_in
        })
    }

    pub(super) fn take_all<T: Default>(&mut self, name: &str, value: Result<T, Vec<String>>) -> T {
        value.unwrap_or_else(|faults| {
            faults.iter().for_each(|fault| self.add(name, fault));
            T::default()
        })
    }

    pub(super) fn time(
        &mut self,
        name: &str,
        text: &str,
        (min, max): (Duration, Duration),
    ) -> Duration {
        let value = units::duration(text).and_then(|value| {
            if (min..=max).contains(&value) {
                Ok(value)
            } else {
                Err(format!("{text} is not between {min:?} and {max:?}"))
            }
        });
        self.take(name, value, min)
    }

    pub(super) fn size(&mut self, name: &str, text: &str, (min, max): (usize, usize)) -> usize {
        let value = units::bytes(text).and_then(|value| within(value, min, max));
        self.take(name, value, min)
    }

    pub(super) fn count(&mut self, name: &str, text: &str, (min, max): (usize, usize)) -> usize {
        let value = text
            .trim()
            .parse()
            .map_err(|_| format!("{text:?} is no count"));
        self.take(name, value.and_then(|value| within(value, min, max)), min)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        write!(f, "the configuration has {count} {noun}:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Faults {}

fn within(value: usize, min: usize, max: usize) -> Result<usize, String> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{value} is not between {min} and {max}"))
    }
}
