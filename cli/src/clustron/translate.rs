//! From the arguments of a cmdlet to the arguments of a native command. Pure.
//!
//! As PowerShell reads them: names in any case and cut short as long as they stay unambiguous, `-Name value` or
//! `-Name:value`, switches alone or as `-Force:$true`, values without a name by their place, lists with commas.

use super::table::{Becomes, CMDLETS, Cmdlet, Parameter};
use crate::failure::Failure;
use std::fmt::Write;

/// What a cmdlet becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Translated {
    /// The arguments of a native command, without the name of the binary.
    Command(Vec<String>),
    /// The person asked how the cmdlet is used: this text.
    Help(String),
}

/// Translates; `arguments` begins with the cmdlet's name.
pub(crate) fn translate(arguments: &[String]) -> Result<Translated, Failure> {
    let (name, rest) =
        arguments.split_first().map_or(("", [].as_slice()), |(n, rest)| (n.as_str(), rest));
    let cmdlet = CMDLETS
        .iter()
        .find(|cmdlet| cmdlet.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| unknown(name))?;
    if rest.iter().any(|argument| is_help(argument)) {
        return Ok(Translated::Help(help(cmdlet)));
    }
    let given = read(cmdlet, rest)?;
    build(cmdlet, &given).map(Translated::Command)
}

fn is_help(argument: &str) -> bool {
    ["-?", "-h", "-help", "--help"].iter().any(|help| help.eq_ignore_ascii_case(argument))
}

/// The parameters of a cmdlet, its own first.
fn parameters(cmdlet: &Cmdlet) -> impl Iterator<Item = &'static Parameter> + use<> {
    let own = cmdlet.parameters;
    let shared = cmdlet.shared.iter().filter(move |p| !own.iter().any(|o| o.name == p.name));
    own.iter().chain(shared)
}

/// The parameter that a name means: exactly, by an alias, or by the beginning of its name.
fn find(cmdlet: &Cmdlet, name: &str) -> Result<&'static Parameter, Failure> {
    let is = |known: &&str| known.eq_ignore_ascii_case(name);
    let exact = parameters(cmdlet).find(|p| is(&p.name) || p.aliases.iter().any(is));
    if let Some(parameter) = exact {
        return Ok(parameter);
    }
    // `-o json` is the native short form; it is no use to refuse it.
    if name == "o" {
        return find(cmdlet, "Output");
    }
    let begins = |known: &str| {
        known.len() > name.len()
            && known.as_bytes()[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    };
    let found: Vec<_> = parameters(cmdlet)
        .filter(|p| begins(p.name) || p.aliases.iter().any(|a| begins(a)))
        .collect();
    let hint = format!("dkv {} -?", cmdlet.name);
    match found.as_slice() {
        [parameter] => Ok(parameter),
        [] => Err(Failure::usage(format!("{} has no parameter -{name}", cmdlet.name), hint)),
        several => {
            let names: Vec<String> = several.iter().map(|p| format!("-{}", p.name)).collect();
            Err(Failure::usage(format!("-{name} may mean {}", names.join(" or ")), hint))
        }
    }
}

type Given = Vec<(&'static Parameter, Vec<String>)>;

fn read(cmdlet: &Cmdlet, arguments: &[String]) -> Result<Given, Failure> {
    let mut given = Given::new();
    let mut unnamed = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let Some(name) = as_name(argument) else {
            let value = argument.clone();
            let list = nth_place(cmdlet, &given, unnamed.len()).is_some_and(takes_list);
            unnamed.push(if list { whole_list(cmdlet, value, &mut rest) } else { value });
            continue;
        };
        let (name, value) = match name.split_once(':') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let parameter = find(cmdlet, name)?;
        if given.iter().any(|(known, _)| known.name == parameter.name) {
            return Err(Failure::usage(
                format!("-{} is given twice", parameter.name),
                "give it once",
            ));
        }
        let values = match parameter.becomes {
            // `-Confirm:$false` asks for what is done anyway.
            Becomes::Refused(_) if value.as_deref().is_some_and(is_false) => continue,
            Becomes::Refused(why) => {
                return Err(Failure::usage(
                    format!("-{} is not offered: {why}", parameter.name),
                    "",
                ));
            }
            Becomes::Flag(_) => match value.as_deref().map(str::to_ascii_lowercase).as_deref() {
                None | Some("$true" | "true" | "1") => vec![],
                Some("$false" | "false" | "0") => continue,
                Some(other) => {
                    let what =
                        format!("-{} is a switch and {other:?} is no answer to it", parameter.name);
                    return Err(Failure::usage(
                        what,
                        format!("-{0} or -{0}:$false", parameter.name),
                    ));
                }
            },
            _ => {
                let next_is_name =
                    |next: &&String| as_name(next).is_some_and(|n| find(cmdlet, n).is_ok());
                let value = match value {
                    Some(value) => value,
                    None if rest.peek().is_some_and(next_is_name) => {
                        return Err(no_value(parameter));
                    }
                    None => rest.next().cloned().ok_or_else(|| no_value(parameter))?,
                };
                vec![if takes_list(parameter) {
                    whole_list(cmdlet, value, &mut rest)
                } else {
                    value
                }]
            }
        };
        given.push((parameter, values));
    }
    place(cmdlet, unnamed, &mut given)?;
    Ok(given)
}

/// The parameters with a place that have no value yet, in order.
fn places(cmdlet: &Cmdlet, given: &Given) -> Vec<&'static Parameter> {
    let mut places: Vec<&'static Parameter> =
        cmdlet.parameters.iter().filter(|p| p.position.is_some()).collect();
    places.sort_by_key(|p| p.position);
    places.retain(|p| !given.iter().any(|(known, _)| known.name == p.name));
    places
}

fn nth_place(cmdlet: &Cmdlet, given: &Given, nth: usize) -> Option<&'static Parameter> {
    places(cmdlet, given).get(nth).copied()
}

/// Gives the values without a name to the parameters with a place that have none yet.
fn place(cmdlet: &Cmdlet, unnamed: Vec<String>, given: &mut Given) -> Result<(), Failure> {
    let places = places(cmdlet, given);
    let mut places = places.into_iter();
    for value in unnamed {
        let Some(parameter) = places.next() else {
            let what = format!("{} has no place for {value:?}", cmdlet.name);
            return Err(Failure::usage(what, format!("dkv {} -?", cmdlet.name)));
        };
        given.push((parameter, vec![value]));
    }
    let missing = parameters(cmdlet)
        .find(|p| p.required && !given.iter().any(|(known, _)| known.name == p.name));
    match missing {
        Some(parameter) => {
            let what = format!("{} needs -{}", cmdlet.name, parameter.name);
            Err(Failure::usage(what, usage(cmdlet)))
        }
        None => Ok(()),
    }
}

fn is_false(value: &str) -> bool {
    ["$false", "false", "0"].iter().any(|no| no.eq_ignore_ascii_case(value))
}

fn no_value(parameter: &Parameter) -> Failure {
    Failure::usage(
        format!("-{} needs a value", parameter.name),
        format!("-{} VALUE", parameter.name),
    )
}

/// The name in `-Name`. A number after the dash is a value, as in PowerShell; two dashes are another's spelling.
fn as_name(argument: &str) -> Option<&str> {
    argument.strip_prefix('-').filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Whether a parameter takes several values with commas between them.
fn takes_list(parameter: &Parameter) -> bool {
    let lists = [
        Becomes::Arguments,
        Becomes::Pairs,
        Becomes::Option("--managers"),
        Becomes::Option("--endpoint"),
    ];
    lists.contains(&parameter.becomes)
}

/// Joins what a shell has split at the blanks of `a, b` or `a ,b`.
fn whole_list(
    cmdlet: &Cmdlet,
    first: String,
    rest: &mut std::iter::Peekable<std::slice::Iter<'_, String>>,
) -> String {
    let mut list = first;
    loop {
        let belongs = |next: &&String| {
            let is_name = as_name(next).is_some_and(|name| find(cmdlet, name).is_ok());
            !is_name && (list.ends_with(',') || next.starts_with(','))
        };
        match rest.next_if(belongs) {
            Some(next) => list.push_str(next),
            None => return list,
        }
    }
}

fn build(cmdlet: &Cmdlet, given: &Given) -> Result<Vec<String>, Failure> {
    let mut command: Vec<String> = cmdlet.native.iter().map(|&word| word.to_owned()).collect();
    let mut arguments = Vec::new();
    for parameter in parameters(cmdlet) {
        let Some((_, values)) = given.iter().find(|(known, _)| known.name == parameter.name) else {
            continue;
        };
        let value = values.first().map_or("", String::as_str);
        match parameter.becomes {
            Becomes::Flag(native) => command.push(native.to_owned()),
            Becomes::Option(native) => command.push(format!("{native}={value}")),
            Becomes::Argument => arguments.push(value.to_owned()),
            Becomes::Arguments => arguments.extend(split(value, ',')),
            Becomes::Pairs => arguments.extend(pairs(value)?),
            Becomes::Refused(why) => return Err(Failure::usage(why, "")),
        }
    }
    // The store's cmdlets give objects, where the native commands give the bare value.
    let gives_objects = matches!(cmdlet.native[0], "kv" | "counter");
    let bare = cmdlet.name == "Test-DkvItem" && !given.iter().any(|(p, _)| p.name == "Detailed");
    let chosen = given.iter().any(|(parameter, _)| parameter.name == "Output");
    if gives_objects && !bare && !chosen {
        command.push("--output=table".to_owned());
    }
    if !arguments.is_empty() {
        command.push("--".to_owned());
        command.append(&mut arguments);
    }
    Ok(command)
}

fn split(list: &str, at: char) -> impl Iterator<Item = String> {
    list.split(at).map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned)
}

/// `a=1,b=2` and PowerShell's `@{a=1; b=2}`.
fn pairs(list: &str) -> Result<Vec<String>, Failure> {
    let table = list.trim().strip_prefix("@{").and_then(|rest| rest.strip_suffix('}'));
    let items: Vec<String> = match table {
        Some(inside) => split(inside, ';').collect(),
        None => split(list, ',').collect(),
    };
    let mut arguments = Vec::new();
    for item in items {
        let Some((key, value)) = item.split_once('=') else {
            let hint = "-Items a=1,b=2 or -Items '@{a=1; b=2}'";
            return Err(Failure::usage(format!("{item:?} is not key=value"), hint));
        };
        arguments.extend([key, value].map(|part| unquoted(part.trim()).to_owned()));
    }
    Ok(arguments)
}

fn unquoted(text: &str) -> &str {
    let inside = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

fn unknown(name: &str) -> Failure {
    let names: Vec<&str> = CMDLETS.iter().map(|cmdlet| cmdlet.name).collect();
    Failure::usage(
        format!("there is no cmdlet {name}"),
        format!("the cmdlets are {}", names.join(", ")),
    )
}

/// One line: how the cmdlet is called.
fn usage(cmdlet: &Cmdlet) -> String {
    let mut text = format!("dkv {}", cmdlet.name);
    for parameter in cmdlet.parameters.iter().filter(|p| !matches!(p.becomes, Becomes::Refused(_)))
    {
        let one = match parameter.becomes {
            Becomes::Flag(_) => format!("-{}", parameter.name),
            Becomes::Arguments => format!("-{} VALUE,…", parameter.name),
            Becomes::Pairs => format!("-{} KEY=VALUE,…", parameter.name),
            _ => format!("-{} VALUE", parameter.name),
        };
        let result =
            if parameter.required { write!(text, " {one}") } else { write!(text, " [{one}]") };
        result.expect("writing to a string");
    }
    text
}

fn help(cmdlet: &Cmdlet) -> String {
    let mut text = format!("{}\n\n", usage(cmdlet));
    for parameter in parameters(cmdlet) {
        let becomes = match parameter.becomes {
            Becomes::Flag(native) | Becomes::Option(native) => native.to_owned(),
            Becomes::Refused(why) => format!("not offered: {why}"),
            Becomes::Argument | Becomes::Arguments | Becomes::Pairs => {
                format!("<{}>", parameter.name.to_lowercase())
            }
        };
        writeln!(text, "  -{:<16} {becomes}", parameter.name).expect("writing to a string");
    }
    let native = cmdlet.native.join(" ");
    write!(text, "\nThe same as `dkv {native}`; `dkv {native} --help` explains each.")
        .expect("writing to a string");
    text
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
