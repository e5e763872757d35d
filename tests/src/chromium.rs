//! A headless Chromium, driven over its DevTools protocol through two pipes: no port, no socket, nothing to find it by.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::host::Host;
use crate::squall::{Background, Squall};
use crate::wait::PATIENCE;

/// Opens the pipes in the order in which [`Chromium::start`] does, and becomes the browser. Without a sandbox of its own: it is
/// root's, and loads nothing but the pages under test.
const START: &str = "exec 3<\"$1/commands\" 4>\"$1/answers\"; exec chromium --headless=new --no-sandbox --disable-gpu \
    --disable-dev-shm-usage --no-first-run --disable-sync --disable-component-update --disable-background-networking \
    --disable-default-apps --disable-extensions --disable-breakpad --mute-audio --password-store=basic --hide-scrollbars \
    --user-data-dir=\"$1/profile\" --remote-debugging-pipe about:blank";

/// A browser; dropped, it ends.
pub struct Chromium {
    commands: File,
    answers: Receiver<Value>,
    number: u64,
    events: VecDeque<Value>,
    process: Background,
}

/// A tab of it.
pub struct Tab<'a> {
    browser: &'a mut Chromium,
    session: String,
    /// What the browser complained about, and what pages said that a user would not want to see.
    complaints: Vec<String>,
}

impl Chromium {
    /// Starts one on a host, with a profile below a directory.
    ///
    /// # Panics
    /// When it cannot be started, or says nothing.
    pub fn start(host: &Host, directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("the world's directory can be written");
        let pipe = |name: &str| {
            let path = directory.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
            path
        };
        let (commands, answers) = (pipe("commands"), pipe("answers"));
        let mut command = host.netns.command("sh");
        command.args(["-c", START, "chromium"]).arg(directory);
        // Whatever it writes for its user belongs to this world.
        command.env("HOME", directory).env("XDG_CONFIG_HOME", directory).env("XDG_CACHE_HOME", directory);
        let process = Squall::with(command, "chromium", &host.directory).start();
        let commands = File::options().write(true).open(commands).expect("it reads commands");
        let answers = File::open(answers).expect("it writes answers");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(answers);
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).expect("it speaks JSON");
                message.clear();
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        Chromium { commands, answers: told, number: 0, events: VecDeque::new(), process }
    }

    /// A new tab, of this width and height.
    ///
    /// # Panics
    /// When the browser refuses, with what it says.
    pub fn tab(&mut self, wide: u32, high: u32) -> Tab<'_> {
        let target = self.ask(None, "Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.ask(None, "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let mut tab = Tab { browser: self, session, complaints: Vec::new() };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            tab.ask(domain, &json!({}));
        }
        tab.is_sized(wide, high);
        tab
    }

    fn ask(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> Value {
        let answered = self.tries(session, method, parameters);
        answered.unwrap_or_else(|error| panic!("`{method}`: {error}"))
    }

    fn tries(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.number += 1;
        let number = self.number;
        let mut message = json!({ "id": number, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let sent = self.commands.write_all(format!("{message}\0").as_bytes());
        sent.unwrap_or_else(|error| panic!("chromium is gone ({error}): {}", self.process.story()));
        loop {
            let heard = self.hear();
            if heard["id"] == number {
                let error = &heard["error"];
                return if error.is_null() { Ok(heard["result"].clone()) } else { Err(error.clone()) };
            }
            self.events.push_back(heard);
        }
    }

    fn hear(&mut self) -> Value {
        self.answers.recv_timeout(PATIENCE * 2).unwrap_or_else(|error| {
            panic!("chromium does not answer ({error}): {}", self.process.story());
        })
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its helpers end with it only when it ends in good order.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && !self.process.ended() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Tab<'_> {
    /// Gives the window another size.
    ///
    /// # Panics
    /// As everything here: when the browser refuses, with what it says.
    pub fn is_sized(&mut self, wide: u32, high: u32) {
        let size = json!({ "width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What its user likes: `light` or `dark`.
    pub fn likes(&mut self, scheme: &str) {
        let wish = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", &wish);
    }

    /// Goes to an address, and waits until the page is there.
    pub fn goes_to(&mut self, url: &str) {
        self.runs("window.squallLeft = true");
        let gone = self.ask("Page.navigate", &json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.arrives();
    }

    /// Does what leads to another page, and waits until that is there.
    pub fn is_led_by(&mut self, script: &str) {
        self.runs("window.squallLeft = true");
        self.runs(script);
        self.arrives();
    }

    fn arrives(&mut self) {
        self.sees("another page", "!window.squallLeft && document.readyState === 'complete'");
    }

    /// Waits until something is true on the page.
    ///
    /// # Panics
    /// After [`PATIENCE`], with what the page shows then.
    pub fn sees(&mut self, what: &str, condition: &str) {
        self.sees_within(what, condition, PATIENCE);
    }

    /// [`Tab::sees`] for what takes its time.
    ///
    /// # Panics
    /// When it takes longer, with what the page shows.
    pub fn sees_within(&mut self, what: &str, condition: &str, within: Duration) {
        let begun = Instant::now();
        // Between two pages there may be none to ask.
        while self.tries(condition) != Some(Value::Bool(true)) {
            if begun.elapsed() > within {
                let shown = self.tries("location.href + '\\n' + document.body.innerText");
                panic!("{what} never came: {:#}\n{:?}", shown.unwrap_or_default(), self.complaints());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a script; gives its value.
    pub fn runs(&mut self, script: &str) -> Value {
        let done = self.evaluate(script);
        assert!(done["exceptionDetails"].is_null(), "`{script}`: {done:#}");
        done["result"]["value"].clone()
    }

    /// As [`Tab::runs`]; nothing where the script throws, or its page goes before it has answered.
    fn tries(&mut self, script: &str) -> Option<Value> {
        let session = self.session.clone();
        let done = self.browser.tries(Some(&session), EVALUATE, &evaluation(script)).ok()?;
        done["exceptionDetails"].is_null().then(|| done["result"]["value"].clone())
    }

    fn evaluate(&mut self, script: &str) -> Value {
        self.ask(EVALUATE, &evaluation(script))
    }

    /// Types a text into what has the focus.
    pub fn types(&mut self, text: &str) {
        self.ask("Input.insertText", &json!({ "text": text }));
    }

    /// Presses a key: `Tab`, `Enter`.
    pub fn presses(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => panic!("`{other}` is no key of this driver"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.ask("Input.dispatchKeyEvent", &event);
        }
    }

    /// Keeps a picture of the whole page.
    pub fn is_pictured(&mut self, path: &Path) {
        let asked = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.ask("Page.captureScreenshot", &asked);
        let bytes = decoded(taken["data"].as_str().expect("a picture"));
        std::fs::write(path, bytes).expect("a picture can be kept");
    }

    /// Everything that the browser complained about so far: exceptions, errors on the console, what a policy forbade.
    pub fn complaints(&mut self) -> Vec<String> {
        // The answer to a question comes after all events before it.
        self.evaluate("0");
        while let Some(event) = self.browser.events.pop_front() {
            let said = &event["params"];
            let bad = match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => {
                    ["error", "warning", "assert"].iter().any(|kind| said["type"] == *kind)
                }
                "Log.entryAdded" => ["error", "warning"].iter().any(|level| said["entry"]["level"] == *level),
                _ => false,
            };
            if bad {
                self.complaints.push(said.to_string());
            }
        }
        self.complaints.clone()
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        let session = self.session.clone();
        self.browser.ask(Some(&session), method, parameters)
    }
}

const EVALUATE: &str = "Runtime.evaluate";

fn evaluation(script: &str) -> Value {
    json!({ "expression": script, "returnByValue": true, "awaitPromise": true })
}

/// Base64 (RFC 4648, section 4), as the protocol writes pictures.
fn decoded(text: &str) -> Vec<u8> {
    let value = |digit: u8| match digit {
        b'A'..=b'Z' => Some(u32::from(digit - b'A')),
        b'a'..=b'z' => Some(u32::from(digit - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(digit - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(value).collect();
    let quantum = |group: &[u32]| {
        let bits = group.iter().enumerate().fold(0, |bits, (at, digit)| bits | digit << (18 - 6 * at));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(quantum).collect()
}
