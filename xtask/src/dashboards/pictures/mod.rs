//! Draws the results of the dashboards' queries as SVG.
//!
//! They are not screenshots. Grafana did not draw them, and each picture says so. They show the contents of a
//! dashboard and their positions.

mod cells;
mod curves;
mod data;
mod scale;
mod svg;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use pidns_monitoring::{Client, Dashboard, Panel, Range, Variables};

use super::{files, sample};
use crate::workspace;
use svg::{Anchor, DARK, Font, GREY, Rect, Svg};

/// Draw the dashboards with the data of a Prometheus server
///
/// Without an address, the data is invented, and the pictures say so.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Prometheus to query, such as 127.0.0.1:9090
    #[arg(long, value_name = "IP:PORT")]
    prometheus: Option<SocketAddr>,
    /// The time to show, up to now
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// The scrape interval of that Prometheus
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    scrape_interval: u32,
    /// The value of a variable, a regular expression; all other variables match everything
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    choose: Vec<(String, String)>,
    /// The source of the data, for the pictures [default: the address of the Prometheus]
    #[arg(long, value_name = "TEXT", requires = "prometheus")]
    data: Option<String>,
    /// The directory to write to
    #[arg(long, value_name = "FOLDER", default_value = "dashboards/pictures")]
    out: PathBuf,
}

fn variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut variables = Variables::all(f64::from(args.scrape_interval));
    if let Some(address) = args.prometheus {
        variables.chosen.clone_from(&args.choose);
        let source = args.data.clone().unwrap_or_else(|| format!("from the Prometheus at {address}"));
        return draw(&Client::new(address), args, &variables, &source);
    }
    let folder = workspace::target_dir()?.join("dashboards-pictures");
    let prometheus = sample::prometheus(&folder, args.minutes * 60 + 600)?;
    // Wait for the last recording rule, whose series a table shows.
    prometheus.wait_for("cluster:pidns_namespace_teardown_seconds:p99_1h", Duration::from_secs(20))?;
    variables = Variables { chosen: args.choose.clone(), ..Variables::all(f64::from(sample::STEP)) };
    draw(&prometheus, args, &variables, "MADE-UP DATA")
}

fn draw(client: &Client, args: &Args, variables: &Variables, source: &str) -> Result<()> {
    if !client.is_ready()? {
        bail!("the Prometheus at {} is not ready", client.address());
    }
    let seconds = f64::from(args.minutes) * 60.0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs_f64();
    // About 90 columns, and at most one for each scrape.
    let step = (seconds / 90.0).ceil().max(variables.scrape_interval);
    let range = Range { start: now - seconds, end: now, step };
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create the directory {}", args.out.display()))?;
    for board in files::boards() {
        let dashboard = Dashboard::read(&files::folder().join(format!("{}.json", board.name)))?;
        let picture = page(&dashboard, client, variables, &range, source)?;
        let path = args.out.join(format!("{}.svg", board.name));
        fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("drew {}", path.display());
    }
    Ok(())
}

/// A column of Grafana's 24 and a row of its grid, in pixels.
const CELL: (f64, f64) = (60.0, 36.0);
const GAP: f64 = 8.0;
const TOP: f64 = 64.0;

/// Draws the whole dashboard.
pub(crate) fn page(
    dashboard: &Dashboard,
    client: &Client,
    variables: &Variables,
    range: &Range,
    source: &str,
) -> Result<String> {
    let width = 24.0 * CELL.0 + 2.0 * GAP;
    let mut svg = Svg::new(width);
    svg.text((2.0 * GAP, 28.0), &dashboard.title, Font::new(20.0, DARK).bold(), width);
    let note = format!(
        "Drawn by `cargo xtask dashboards draw`, not by Grafana, which draws differently. Data: {source}. {} to {} UTC.",
        scale::clock(range.start, range),
        scale::clock(range.end, range)
    );
    svg.text((2.0 * GAP, 49.0), &note, Font::new(12.5, GREY), width);
    let mut height = TOP;
    for panel in &dashboard.panels {
        let [x, y, w, h] = panel.place.map(f64::from);
        let place = Rect { x: GAP + x * CELL.0, y: TOP + y * CELL.1, w: w * CELL.0, h: h * CELL.1 };
        height = height.max(place.y + place.h + GAP);
        if panel.kind == "row" {
            let text = Font::new(15.0, DARK).bold();
            svg.text((place.x + GAP, place.y + 25.0), &panel.title, text, place.w);
        } else {
            let frame = place.inside([GAP / 2.0; 4]);
            draw_panel(&mut svg, panel, client, variables, range, frame)
                .with_context(|| format!("in {}: {}", dashboard.title, panel.title))?;
        }
    }
    Ok(svg.finish(height, &dashboard.title))
}

fn draw_panel(
    svg: &mut Svg,
    panel: &Panel,
    client: &Client,
    variables: &Variables,
    range: &Range,
    frame: Rect,
) -> Result<()> {
    let range = &panel.range(range);
    let results = panel.ask(client, variables, range)?;
    svg.rect(frame, "#ffffff", "#dde0e3");
    svg.text((frame.x + 10.0, frame.y + 20.0), &panel.title, Font::new(13.0, DARK).bold(), frame.w - 20.0);
    let room = frame.inside([10.0, 32.0, 10.0, 8.0]);
    let is_drawn = match panel.kind.as_str() {
        "stat" => cells::stat(svg, panel, &results, room),
        "bargauge" => cells::bars(svg, panel, &results, room),
        "table" => cells::table(svg, panel, &results, room),
        "heatmap" => cells::heatmap(svg, panel, &results, range, room),
        "timeseries" => curves::draw(svg, panel, &results, range, room),
        other => {
            bail!("a panel of the kind {other} is not drawn yet: add it to xtask/src/dashboards/pictures")
        }
    };
    if !is_drawn {
        no_data(svg, &panel.no_data, room);
    }
    Ok(())
}

/// Draws the reason for missing data, in lines as wide as the panel.
fn no_data(svg: &mut Svg, text: &str, room: Rect) {
    let font = Font::new(12.0, GREY).at(Anchor::Middle);
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or("", String::as_str);
        if !line.is_empty() && svg::width_of(line, font.size) + svg::width_of(word, font.size) > room.w {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let mut y = room.y + room.h / 2.0 - 8.0 * f64::from(u32::try_from(lines.len()).unwrap_or(1) - 1);
    for line in &lines {
        svg.text((room.x + room.w / 2.0, y), line, font, f64::INFINITY);
        y += 16.0;
    }
}
