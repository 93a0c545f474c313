//! Reads an event stream as a browser does: the rules of the HTML Standard, 9.2.6, line by line, and
//! nothing that knows how tidings writes one.

/// An event as a page receives it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) last_event_id: String,
}

/// What a page has heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) messages: Vec<Message>,
    /// Every reconnection time that was set, in order.
    pub(crate) retries: Vec<u64>,
    /// What is left of a block that did not end.
    pub(crate) rest: bool,
}

/// Reads a whole stream.
pub(crate) fn hear(stream: &[u8]) -> Heard {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut heard = Heard::default();
    let (mut name, mut data, mut id) = (String::new(), String::new(), String::new());
    let mut last_event_id = String::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + width..];
        if line.is_empty() {
            last_event_id.clone_from(&id);
            let name = std::mem::take(&mut name);
            if data.is_empty() {
                continue;
            }
            let mut data = std::mem::take(&mut data);
            data.pop();
            heard.messages.push(Message {
                name: if name.is_empty() {
                    "message".into()
                } else {
                    name
                },
                data,
                last_event_id: last_event_id.clone(),
            });
            continue;
        }
        if line.starts_with(':') {
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                heard.retries.extend(value.parse::<u64>().ok());
            }
            _ => {}
        }
    }
    heard.rest = !rest.is_empty() || !data.is_empty() || !name.is_empty();
    heard
}
