//! A histogram out of OpenMetrics text.

/// The value below which this part of the observations lies, interpolated within its bucket as Prometheus
/// does; `None` without any.
pub(crate) fn quantile(metrics: &str, name: &str, part: f64) -> Option<f64> {
    let buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter_map(|line| bucket(line.strip_prefix(name)?.strip_prefix("_bucket{")?))
        .collect();
    let all = buckets.last()?.1;
    let wanted = all * part;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted && count > below {
            if bound.is_infinite() {
                return Some(lower);
            }
            return Some(lower + (bound - lower) * (wanted - below) / (count - below));
        }
        (lower, below) = (bound, count);
    }
    None
}

/// The bound of a bucket and how many observations are not above it, from `le="0.1"} 7`.
fn bucket(text: &str) -> Option<(f64, f64)> {
    let (bound, count) = text.strip_prefix("le=\"")?.split_once("\"} ")?;
    let bound = match bound {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    Some((bound, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let metrics = "# TYPE a_seconds histogram\na_seconds_sum 3.0\na_seconds_count 10\n\
             a_seconds_bucket{le=\"0.1\"} 0\na_seconds_bucket{le=\"0.2\"} 8\n\
             a_seconds_bucket{le=\"0.4\"} 10\na_seconds_bucket{le=\"+Inf\"} 10\n";
        let of = |part| quantile(metrics, "a_seconds", part);
        assert!((of(0.5).expect("some") - 0.1625).abs() < 1e-9);
        assert!((of(0.9).expect("some") - 0.3).abs() < 1e-9);
        assert_eq!(quantile(metrics, "b_seconds", 0.5), None);
        let none = "a_seconds_bucket{le=\"+Inf\"} 0\n";
        assert_eq!(quantile(none, "a_seconds", 0.5), None);
    }
}
