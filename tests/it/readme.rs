//! The README's table of settings is the one in the code.

use sluicegate_worker::config::SETTINGS;

#[test]
fn the_settings_in_the_readme_are_those_of_the_program() -> anyhow::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path)?;
    let between =
        readme.split_once("<!-- settings -->").and_then(|(_, rest)| rest.split_once("<!-- /settings -->"));
    let table = between.map(|(table, _)| table).unwrap_or_default();
    let found: Vec<&str> = table.lines().map(str::trim).filter(|line| line.starts_with("| `")).collect();
    let wanted: Vec<String> = SETTINGS
        .iter()
        .map(|setting| format!("| `{}` | `{}` | {} |", setting.name, setting.default, setting.help))
        .collect();
    assert!(found == wanted, "the rows between the markers should be:\n{}", wanted.join("\n"));
    Ok(())
}
