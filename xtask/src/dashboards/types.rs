//! Checks the dashboards' JSON against Grafana's published types, with the TypeScript compiler.
//!
//! npm installs exact versions of the compiler and the types (`@grafana/schema`) in target/. Dashboards that passed
//! are not checked again until they change.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::files;
use crate::{shell, workspace};

const GRAFANA_SCHEMA: &str = "12.4.10";
const TYPESCRIPT: &str = "5.9.3";

/// The kinds of panels, and the part of `@grafana/schema` with the types of their options.
const KINDS: [(&str, &str); 5] = [
    ("bargauge", "BarGauge"),
    ("heatmap", "Heatmap"),
    ("stat", "Stat"),
    ("table", "Table"),
    ("timeseries", "TimeSeries"),
];

/// The start of the TypeScript file. TypeScript expects names of enum members, but JSON has their values, so `Plain`
/// converts the types. The last lines fail if a new version of the types allows everything.
const PRELUDE: &str = r#"import type { Dashboard } from "@grafana/schema";

type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

// @ts-expect-error: there is no such field
export const unknownField: Plain<Dashboard> = { schemaVersion: 39, editible: false };
export const unknownMode: Plain<Dashboard> = {
  schemaVersion: 39,
  // @ts-expect-error: there is no such mode
  panels: [{ type: "stat", fieldConfig: { defaults: { thresholds: { mode: "absolut", steps: [] } }, overrides: [] } }],
};
"#;

/// Fails with the compiler's errors.
pub(crate) fn check() -> Result<()> {
    let folder = workspace::target_dir()?.join("dashboards-types");
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the directory {}", folder.display()))?;
    install(&folder)?;
    let mut program = PRELUDE.to_owned();
    for (kind, name) in KINDS {
        let _ = writeln!(
            program,
            "import type * as {kind} from \"@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen\";"
        );
    }
    for board in files::boards() {
        program.push_str(&typescript(board.name, &board.json())?);
    }
    let checked = folder.join("checked.ts");
    if fs::read_to_string(&checked).is_ok_and(|before| before == program) {
        return Ok(());
    }
    write(&folder.join("dashboards.ts"), &program)?;
    write(&folder.join("tsconfig.json"), &configuration().to_string())?;
    shell::run(
        shell::command("node")
            .arg(folder.join("node_modules/typescript/lib/tsc.js"))
            .arg("--project")
            .arg(&folder),
    )
    .context("Grafana's types do not allow a dashboard: see dashboards.ts there")?;
    write(&checked, &program)
}

fn configuration() -> Value {
    json!({
        "compilerOptions": {
            "strict": true,
            "noEmit": true,
            "target": "es2022",
            "module": "esnext",
            "moduleResolution": "bundler",
            // Errors in the types themselves are not ours to check.
            "skipLibCheck": true,
            "types": [],
        },
        "files": ["dashboards.ts"],
    })
}

/// Installs compiler and types with npm, unless these versions are installed.
fn install(folder: &Path) -> Result<()> {
    let package = json!({
        "private": true,
        "dependencies": { "@grafana/schema": GRAFANA_SCHEMA, "typescript": TYPESCRIPT },
    })
    .to_string();
    let installed: PathBuf = folder.join("installed.json");
    if fs::read_to_string(&installed).is_ok_and(|before| before == package) {
        return Ok(());
    }
    for program in ["node", "npm"] {
        if shell::find(program).is_none() {
            bail!(
                "{program} is not on PATH: `cargo xtask setup` installs it, to check the dashboards against Grafana's types"
            );
        }
    }
    write(&folder.join("package.json"), &package)?;
    // Without a lock file, because the versions are exact. Without scripts, because no package needs them.
    let mut npm = shell::command("npm");
    npm.args(["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
        .arg(folder);
    shell::run(&mut npm)?;
    // The last check used other types.
    let _ = fs::remove_file(folder.join("checked.ts"));
    write(&installed, &package)
}

/// The dashboard, and each panel's options and fields, as typed constants.
fn typescript(name: &str, board: &Value) -> Result<String> {
    let mut out = format!("export const {name}: Plain<Dashboard> = {board:#};\n");
    for panel in
        board["panels"].as_array().context("no panels")?.iter().filter(|panel| panel["type"] != "row")
    {
        let kind = panel["type"].as_str().context("a panel has no kind")?;
        if !KINDS.iter().any(|(known, _)| *known == kind) {
            bail!("the kind {kind} of panels is not in KINDS of xtask/src/dashboards/types.rs");
        }
        let constant = format!("{name}_{}", panel["id"]);
        let _ = writeln!(out, "export const {constant}: Plain<{kind}.Options> = {:#};", panel["options"]);
        let custom = &panel["fieldConfig"]["defaults"]["custom"];
        if !custom.is_null() {
            let _ = writeln!(out, "export const {constant}_field: Plain<{kind}.FieldConfig> = {custom:#};");
        }
    }
    Ok(out)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_checked_with_the_types_of_its_kind() {
        for board in files::boards() {
            let panels = board.panels().count();
            let program = typescript(board.name, &board.json()).expect("kinds that are known");
            assert_eq!(program.matches(".Options> = ").count(), panels, "{}", board.name);
        }
        let gauge = json!({ "panels": [{ "type": "gauge", "id": 1 }] });
        let error = typescript("x", &gauge).expect_err("no types for it");
        assert!(error.to_string().contains("the kind gauge of panels is not in KINDS"), "{error}");
    }
}
