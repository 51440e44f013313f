//! `build --progress=rawjson`: what is told of a build as BuildKit's clients write it for programs, one JSON document a line
//! (buildkit client/graph.go, `SolveStatus`).
//!
//! ```text
//! Step 2/3 : RUN make        a vertex begins, and the one before has ended
//!  ---> Using cache          it was done before
//! other lines                logs of it, in base64; what is red came on standard error
//! id: Downloading 1B/2B      a status of it
//! Successfully built ...     a vertex for what becomes of the image
//! ```

use dockerfile_checks::Findings;
use engine_api::auth::encode_standard;
use serde_json::{Value, json};
use stdx::time::Rfc3339;

use super::Message;

/// How a daemon marks what a command prints on standard error.
const RED: &str = "\u{1b}[91m";
const PLAIN: &str = "\u{1b}[0m";

/// What the vertex is called that has what checks find.
const DEFINITION: &str = "[internal] load build definition from";

/// How much of a Dockerfile is told with its warnings in all, in bytes: each of them has all of it.
const SOURCES_MAX: usize = 16 << 20;

/// Statuses of layers that are there.
const ENDED: [&str; 5] = ["Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from"];

/// What a build tells.
#[derive(Debug, Default)]
pub(super) struct Raw {
    vertex: Option<Vertex>,
    /// Whether the image is there.
    exports: bool,
    /// Whether a command of the step that goes on has begun: what looks like our lines may be its own.
    runs: bool,
    /// What goes on in the vertex, and since when.
    going_on: Vec<(String, String)>,
}

#[derive(Debug)]
struct Vertex {
    digest: String,
    name: String,
    started: String,
    is_cached: bool,
}

impl Vertex {
    fn new(name: &str) -> Vertex {
        let digest = format!("sha256:{}", stdx::id::random_hex::<32>());
        Vertex { digest, name: name.to_owned(), started: now(), is_cached: false }
    }

    fn told(&self, completed: Option<&str>, error: &str) -> String {
        let mut vertex = json!({"digest": self.digest, "name": self.name, "started": self.started});
        if let Some(completed) = completed {
            vertex["completed"] = completed.into();
        }
        if self.is_cached {
            vertex["cached"] = true.into();
        }
        if !error.is_empty() {
            vertex["error"] = error.into();
        }
        line(&json!({"vertexes": [vertex]}))
    }
}

impl Raw {
    /// What is written of a message.
    pub(super) fn message(&mut self, message: &Message) -> String {
        if let Some(detail) = message.detail.filter(|_| !message.id.is_empty()) {
            return self.status(&message.id, &message.status, [detail.current, detail.total]);
        }
        if !message.stream.is_empty() {
            return self.text(&message.stream);
        }
        match (message.id.as_str(), message.status.as_str()) {
            ("", "") => String::new(),
            ("", status) if status.starts_with("The push refers to repository ") => self.begin(status),
            ("", status) => self.log(&format!("{status}\n")),
            (id, status) => self.status(id, status, [0, 0]),
        }
    }

    /// What is written at the end: of a failure with its sentence.
    pub(super) fn end(&mut self, error: &str) -> String {
        let ended = self.statuses_end();
        let told = self.vertex.take().map(|vertex| vertex.told(Some(&now()), error));
        ended + &told.unwrap_or_default()
    }

    fn begin(&mut self, name: &str) -> String {
        let before = self.end("");
        let vertex = Vertex::new(name);
        let told = vertex.told(None, "");
        (self.vertex, self.runs) = (Some(vertex), false);
        before + &told
    }

    fn text(&mut self, text: &str) -> String {
        let whole = text.strip_suffix('\n').unwrap_or(text);
        if let Some((count, original)) = whole.strip_prefix("Step ").and_then(|step| step.split_once(" : "))
            && !self.exports
            && is_count(count)
        {
            return self.begin(&format!("[{count}] {original}"));
        }
        if whole.starts_with("Successfully built ") && self.vertex.is_some() {
            self.exports = true;
            return self.begin("exporting to image");
        }
        match whole.strip_prefix(" ---> ") {
            Some(what) if self.exports => {
                let ended = self.statuses_end();
                ended + &self.status(what, "", [0, 0])
            }
            Some("Using cache") if !self.runs => {
                self.vertex.iter_mut().for_each(|vertex| vertex.is_cached = true);
                String::new()
            }
            Some(what) if is_ours(what) => {
                self.runs |= what.starts_with("Running in ");
                String::new()
            }
            _ => match whole.strip_prefix("Successfully tagged ") {
                Some(name) if self.exports => self.status(&format!("naming to {name}"), "", [0, 0]),
                _ if self.exports && !whole.is_empty() => self.begin(whole),
                _ => self.log(text),
            },
        }
    }

    /// The digest of what goes on; what is told before any step has a vertex of its own.
    fn current(&mut self) -> (String, String) {
        let begun = if self.vertex.is_none() { self.begin("[internal] load metadata") } else { String::new() };
        (begun, self.vertex.as_ref().map(|vertex| vertex.digest.clone()).unwrap_or_default())
    }

    fn log(&mut self, text: &str) -> String {
        let (begun, vertex) = self.current();
        let red = text.strip_prefix(RED).map(|text| text.strip_suffix(PLAIN).unwrap_or(text));
        let stream = if red.is_some() { 2 } else { 1 };
        let data = encode_standard(red.unwrap_or(text).as_bytes());
        begun + &line(&json!({"logs": [{"vertex": vertex, "stream": stream, "data": data, "timestamp": now()}]}))
    }

    fn status(&mut self, id: &str, name: &str, [current, total]: [i64; 2]) -> String {
        let (begun, vertex) = self.current();
        let now = now();
        let started = match self.going_on.iter().find(|(known, _)| known == id) {
            Some((_, started)) => started.clone(),
            None => {
                self.going_on.push((id.to_owned(), now.clone()));
                now.clone()
            }
        };
        let mut status = json!({"id": id, "vertex": vertex, "current": current, "timestamp": now, "started": started});
        if !name.is_empty() {
            status["name"] = name.into();
        }
        if total > 0 {
            status["total"] = total.into();
        }
        if ENDED.iter().any(|ended| name.starts_with(ended)) {
            status["completed"] = now.into();
            self.going_on.retain(|(known, _)| known != id);
        }
        begun + &line(&json!({"statuses": [status]}))
    }

    /// Ends what goes on in the vertex.
    fn statuses_end(&mut self) -> String {
        let Some(vertex) = &self.vertex else { return String::new() };
        let now = now();
        let told = |(id, started): (String, String)| {
            let status = json!({"id": id, "vertex": vertex.digest, "current": 0, "timestamp": now, "started": started,
                                "completed": now});
            line(&json!({"statuses": [status]}))
        };
        self.going_on.drain(..).map(told).collect()
    }
}

/// What checks find in a Dockerfile of that name and text, with a vertex of its own.
pub fn warnings((name, text): (&str, &str), findings: &Findings) -> String {
    let vertex = Vertex::new(&format!("{DEFINITION} {name}"));
    let mut told = vertex.told(None, "") + &vertex.told(Some(&now()), "");
    let mut bytes = 0;
    for warning in &findings.warnings {
        let range = |(start, end): (usize, usize)| json!({"start": {"line": start}, "end": {"line": end}});
        let mut document = json!({
            "vertex": vertex.digest,
            "level": 1,
            "short": encode_standard(warning.short().as_bytes()),
            "detail": [encode_standard(warning.rule.description.as_bytes())],
            "range": warning.ranges().into_iter().map(range).collect::<Vec<_>>(),
        });
        bytes += text.len();
        if bytes <= SOURCES_MAX {
            let data = encode_standard(text.as_bytes());
            document["sourceInfo"] = json!({"filename": name, "data": data, "language": "Dockerfile"});
        }
        if !warning.rule.url.is_empty() {
            document["url"] = warning.rule.url.into();
        }
        told.push_str(&line(&json!({"warnings": [document]})));
    }
    told
}

/// `2/3`
fn is_count(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('/').is_some_and(|(at, all)| is_number(at) && is_number(all))
}

/// What a daemon says of containers and images between what commands print.
fn is_ours(what: &str) -> bool {
    let id = what.strip_prefix("Running in ").or(what.strip_prefix("Removed intermediate container ")).unwrap_or(what);
    id.len() == 12 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn line(document: &Value) -> String {
    format!("{document}\n")
}

fn now() -> String {
    Rfc3339::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of these lines: names, and what differs from time to time left out.
    fn told(raw: &mut Raw, text: &str) -> Vec<Value> {
        let message = Message { stream: text.to_owned(), ..Message::default() };
        let text = raw.message(&message);
        let mut all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for document in &mut all {
            let parts = document.as_object_mut().unwrap().values_mut().flat_map(|list| list.as_array_mut().unwrap());
            for part in parts.filter_map(Value::as_object_mut) {
                for name in ["digest", "vertex", "timestamp", "started"] {
                    assert!(part.remove(name).is_none_or(|value| value.as_str().is_some_and(|text| text.len() > 8)));
                }
                if let Some(completed) = part.get_mut("completed") {
                    *completed = true.into();
                }
            }
        }
        all
    }

    #[test]
    fn lines_of_a_build_are_vertexes_and_logs() {
        let mut raw = Raw::default();
        for (text, wanted) in [
            ("Step 1/2 : FROM a\n", vec![json!({"vertexes": [{"name": "[1/2] FROM a"}]})]),
            (" ---> 0123456789ab\n", vec![]),
            (
                "Step 2/2 : RUN b : c\n",
                vec![
                    json!({"vertexes": [{"name": "[1/2] FROM a", "completed": true}]}),
                    json!({"vertexes": [{"name": "[2/2] RUN b : c"}]}),
                ],
            ),
            (" ---> Running in 0123456789ab\n", vec![]),
            (" ---> Using cache\n", vec![json!({"logs": [{"stream": 1, "data": "IC0tLT4gVXNpbmcgY2FjaGUK"}]})]),
            ("\u{1b}[91mx\n\u{1b}[0m", vec![json!({"logs": [{"stream": 2, "data": "eAo="}]})]),
            (
                "Successfully built 0123456789ab\n",
                vec![
                    json!({"vertexes": [{"name": "[2/2] RUN b : c", "completed": true}]}),
                    json!({"vertexes": [{"name": "exporting to image"}]}),
                ],
            ),
            ("Successfully tagged a:1\n", vec![json!({"statuses": [{"id": "naming to a:1", "current": 0}]})]),
        ] {
            assert_eq!(told(&mut raw, text), wanted, "{text:?}");
        }
        assert!(raw.end("").ends_with("}]}\n"));
        assert_eq!(raw.end(""), "");
        told(&mut raw, "Step 1/1 : FROM a\n");
        assert!(raw.end("no").contains("\"error\":\"no\""));
    }
}
