//! `squall inject`: one fault from the command line. Builds the same document that a file would hold.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use serde_json::{Map, Value, json};
use squall_agent::policy::Policy;
use squall_controller::conductor::signals;
use squall_experiments::document::{Document, Problems, yaml};
use squall_experiments::exit::Exit;
use squall_experiments::faults::{Entry, Kind, Parameter, catalogue};
use squall_experiments::peer::{Peer, Ports};
use squall_experiments::quantity::{Bandwidth, Percent, Period, Pick, QuantityError, Size};

use super::appendix::never_touched;
use super::load::{self, Vars};
use super::{Common, print, run};

/// Options of `squall inject`: a fault with one flag per parameter, made from the catalogue.
#[derive(Debug)]
pub struct Inject {
    fault: String,
    parameters: Map<String, Value>,
    scope: Option<Value>,
    lasts: String,
    title: Option<String>,
    print: bool,
    options: run::Options,
}

impl Inject {
    /// Prints the document, or runs it.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        // From here on a signal is kept until somebody can act on it.
        let _held = signals::hold()?;
        // What is printed has been checked, and still holds references instead of secrets.
        let document = match self.document() {
            Ok(document) => document,
            Err(problems) => return Ok(load::refuse(&problems, common)),
        };
        if self.print {
            print::result(&self.yaml())?;
            // Beside the document, which holds for every host.
            if let Ok(policy) = Policy::of_this_host() {
                eprintln!("never touched on this host: {}", never_touched(&policy).join(", "));
            }
            return Ok(Exit::Held);
        }
        run::execute(document, &self.options, common)
    }

    /// The checked document: one fault and no hypothesis, so that its verdict says only whether it was measured.
    fn document(&self) -> Result<Document, Problems> {
        load::text("the document of `squall inject`", self.yaml().as_bytes(), &Vars::default())
    }

    fn yaml(&self) -> String {
        let title = self.title.clone().unwrap_or_else(|| format!("{} from the command line", self.fault));
        let mut step = Map::new();
        step.insert("fault".to_owned(), json!({ self.fault.clone(): self.parameters }));
        if let Some(scope) = &self.scope {
            step.insert("in".to_owned(), scope.clone());
        }
        step.insert("for".to_owned(), json!(self.lasts));
        yaml(&json!({ "squall": 1, "title": title, "hypothesis": [], "method": [step] }))
    }
}

impl clap::Args for Inject {
    fn augment_args(command: Command) -> Command {
        let faults = catalogue().into_iter().map(|entry| subcommand(&entry));
        command
            .subcommand_required(true)
            .subcommand_value_name("FAULT")
            .subcommand_help_heading("Faults")
            .subcommands(faults)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Inject {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, flags) = matches.subcommand().ok_or_else(missing)?;
        let entry = catalogue().into_iter().find(|entry| entry.name == name).ok_or_else(missing)?;
        let mut parameters = Map::new();
        for parameter in entry.parameters() {
            if let Some(value) = value(&parameter, flags) {
                put(&mut parameters, &parameter.path, value);
            }
        }
        let mut scope = Map::new();
        for (path, value) in flags.get_many::<(Vec<String>, Value)>("in").into_iter().flatten() {
            put(&mut scope, path, value.clone());
        }
        Ok(Inject {
            fault: name.to_owned(),
            parameters,
            scope: (!scope.is_empty()).then_some(Value::Object(scope)),
            lasts: flags.get_one::<String>("for").cloned().unwrap_or_default(),
            title: flags.get_one::<String>("title").cloned(),
            print: flags.get_flag("print"),
            options: run::Options::from_arg_matches(flags)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn subcommand(entry: &Entry) -> Command {
    let parameters = entry.parameters();
    let example = format!("As a step of a file:\n{}", entry.example);
    let command = Command::new(entry.name)
        .about(entry.summary)
        .after_help(example)
        .next_help_heading("Parameters of the fault")
        .args(parameters.iter().map(flag))
        .next_help_heading("Where, how long, and what then")
        .arg(
            Arg::new("in")
                .long("in")
                .value_name("SCOPE:VALUE")
                .action(ArgAction::Append)
                .value_parser(scope)
                .help(
                    "Whose traffic or processes: `user:www-data`, `cgroup:system.slice/shop.service`, `port:80`, \
                     `process.name:nginx`, `process.listening:80`, `process.exe:/usr/sbin/nginx`, `process.pid:312`, \
                     `process.args:REGEX`; fields of `process` may be combined",
                ),
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("PERIOD")
                .required(true)
                .value_parser(checked::<Period>)
                .help("How long the fault lasts: `30s`"),
        )
        .arg(Arg::new("title").long("title").value_name("TEXT").help("What the report calls it"))
        .arg(
            Arg::new("print")
                .long("print")
                .action(ArgAction::SetTrue)
                .help("Print the document as a file would hold it, and do nothing"),
        );
    <run::Options as clap::Args>::augment_args(command)
}

fn flag(parameter: &Parameter) -> Arg {
    let name = parameter.flag();
    let arg = Arg::new(name.clone()).long(name);
    let default = parameter.default.as_ref().map(|default| format!(" [default: {default}]"));
    let arg = arg.help(format!("{}{}", parameter.description, default.unwrap_or_default()));
    let arg = if parameter.list { arg.action(ArgAction::Append) } else { arg };
    match &parameter.kind {
        Kind::Boolean => arg.action(ArgAction::SetTrue),
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|(word, _)| word.clone()).collect();
            arg.value_name("WORD").value_parser(words)
        }
        Kind::Period => arg.value_name("PERIOD").value_parser(checked::<Period>),
        Kind::Percent => arg.value_name("PERCENT").value_parser(checked::<Percent>),
        Kind::Bandwidth => arg.value_name("BANDWIDTH").value_parser(checked::<Bandwidth>),
        Kind::Size => arg.value_name("SIZE").value_parser(checked::<Size>),
        Kind::Pick => arg.value_name("HOW_MANY").value_parser(checked::<Pick>),
        Kind::Peer => arg.value_name("PEER").value_parser(checked::<Peer>),
        Kind::Ports => arg.value_name("PORTS").value_parser(checked::<Ports>),
        Kind::Integer | Kind::Number => {
            arg.value_name("NUMBER").allow_hyphen_values(true).value_parser(number)
        }
        Kind::Text => arg.value_name("TEXT"),
    }
}

/// The text itself, once its own parser takes it; a reference is resolved and parsed with the document.
fn checked<T: std::str::FromStr<Err = QuantityError>>(text: &str) -> Result<String, String> {
    if text.contains("${") {
        return Ok(text.to_owned());
    }
    match text.parse::<T>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.help.map_or(error.what.clone(), |help| format!("{}; {help}", error.what))),
    }
}

fn number(text: &str) -> Result<String, String> {
    text.parse::<f64>().map(|_| text.to_owned()).map_err(|_| "write a number".to_owned())
}

/// `process.listening:80` as the path and the value that a file would have.
fn scope(text: &str) -> Result<(Vec<String>, Value), String> {
    let Some((kind, value)) = text.split_once(':').filter(|(kind, _)| !kind.is_empty()) else {
        return Err("write it as `user:www-data` or `process.name:nginx`".to_owned());
    };
    let path: Vec<String> = kind.split('.').map(str::to_owned).collect();
    let counted = matches!(kind, "process.pid" | "process.listening");
    let value = match value.parse::<u64>() {
        Ok(number) if counted => json!(number),
        _ => json!(value),
    };
    Ok((path, value))
}

fn value(parameter: &Parameter, flags: &ArgMatches) -> Option<Value> {
    let name = parameter.flag();
    if parameter.kind == Kind::Boolean {
        return flags.get_flag(&name).then_some(Value::Bool(true));
    }
    let mut values = flags.get_many::<String>(&name)?.map(|text| match parameter.kind {
        Kind::Integer | Kind::Number => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        _ => json!(text),
    });
    if parameter.list { Some(values.collect()) } else { values.next() }
}

fn put(map: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            map.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let below = map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn parse(line: &str) -> Result<Inject, clap::Error> {
        let command = Inject::augment_args(Command::new("inject"));
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        Inject::from_arg_matches(&matches)
    }

    #[test]
    fn one_line_is_the_same_document_as_a_file() {
        let inject = parse(
            "inject partition --to db:5432 --to 10.0.0.0/8 --direction egress --in user:shop --for 60s --title A",
        )
        .unwrap();
        assert_eq!(
            inject.yaml(),
            "\
squall: 1
title: A
hypothesis: []
method:
  - fault:
      partition:
        to: [\"db:5432\", \"10.0.0.0/8\"]
        direction: egress
    in:
      user: shop
    for: 60s
"
        );
        let step = &inject.document().unwrap().experiment.method[0];
        assert_eq!(step.r#for, Some(Period::from_secs(60)));
    }

    #[test]
    fn groups_and_numbers_reach_their_places() {
        let line = "inject kill --signal TERM --then-signal KILL --then-after 5s --pick 1 --in process.listening:80 --in process.name:nginx --for 30s";
        let inject = parse(line).unwrap();
        assert_eq!(json!(inject.parameters)["then"], json!({ "signal": "KILL", "after": "5s" }));
        assert_eq!(inject.scope, Some(json!({ "process": { "listening": 80, "name": "nginx" } })));
        inject.document().unwrap();
    }

    #[test]
    fn wrong_values_are_errors_of_usage_and_wrong_meanings_of_the_document() {
        for line in [
            "inject",
            "inject gremlin --for 3s",
            "inject pause --in user:shop",
            "inject pause --in user:shop --for 3",
            "inject pause --in shop --for 3s",
            "inject pause --pick 150% --in user:shop --for 3s",
            "inject partition --to : --for 3s",
            "inject kill --signal STOP --in user:shop --for 3s",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
        for (line, what) in [
            ("inject pause --for 3s", "nothing says whose processes are meant"),
            ("inject pause --in proces.name:x --for 3s", "unknown scope `proces`"),
            ("inject pause --in user:a --in port:80 --for 3s", "`in` has more than one scope"),
            ("inject partition --for 3s", "nothing says whose traffic is meant"),
            ("inject kill --then-signal KILL --in user:a --for 3s", "`then` has no `after`"),
            ("inject pause --in process.pid:x --for 3s", "`pid` must be a whole number, not the text `x`"),
        ] {
            let problems = parse(line).unwrap().document().expect_err(line);
            assert_eq!(problems.list()[0].what, what, "{line}");
        }
    }

    #[test]
    fn no_parameter_takes_the_place_of_an_option() {
        for entry in catalogue() {
            for parameter in entry.parameters() {
                let taken =
                    ["in", "for", "title", "print", "help", "format", "state-dir", "seed", "events", "junit"];
                assert!(!taken.contains(&parameter.flag().as_str()), "{} --{}", entry.name, parameter.flag());
            }
        }
        Inject::augment_args(Command::new("inject")).debug_assert();
    }
}
