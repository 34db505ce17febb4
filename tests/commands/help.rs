//! The help of each command.

use harness::Project;

const COMMANDS: [&str; 25] = [
    "",
    "init",
    "run",
    "shard",
    "rank",
    "plan",
    "check",
    "status",
    "cancel",
    "dag",
    "inspect",
    "render",
    "trace",
    "report",
    "diff",
    "export",
    "export model",
    "export dataset",
    "verify",
    "gc",
    "schema",
    "kinds",
    "models",
    "doctor",
    "completions",
];

#[test]
fn help_of_every_command() {
    let project = Project::new(&[]);
    let mut text = String::new();
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("-h");
        text.push_str(&format!("$ halftone {}\n{}\n", args.join(" "), project.done(&args)));
    }
    // Every command of the list is there.
    let (_, rest) = text.split_once("Commands:\n").unwrap();
    for line in rest.lines().take_while(|line| line.starts_with("  ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(name == "help" || COMMANDS.contains(&name), "{name}");
    }
    insta::assert_snapshot!(text);
}
