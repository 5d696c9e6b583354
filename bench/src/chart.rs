//! The pictures.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;
use crate::age::Portion;
use crate::backlog::Depth;
use crate::report::{Measured, Report};
use crate::targets::Target;

const POSTERS: [usize; 4] = [1, 16, 64, 256];

const COLORS: [RGBColor; 4] =
    [RGBColor(51, 103, 145), RGBColor(19, 170, 82), RGBColor(198, 48, 43), RGBColor(120, 120, 120)];

pub(crate) fn draw(report: &Report, out: &Path) -> Result<()> {
    targets(report, &out.join("targets.svg"))?;
    for (name, keys, title) in [
        ("one-key.svg", 1, "One hot key: messages end to end, against the raw limit"),
        ("1000-keys.svg", 1_000, "1,000 keys: messages end to end, against the raw limit"),
        ("100000-keys.svg", 100_000, "100,000 keys: messages end to end, against the raw limit"),
    ] {
        let ratios = |of: &Measured| {
            POSTERS.map(|posters| (posters as f64, of.mixes.ratio(keys, posters, false))).into()
        };
        lines(report, &out.join(name), (title, "posters", "of raw"), ratios)?;
    }
    let costs = |of: &Measured| {
        let cost = |depth: &Depth| depth.post.p50 + depth.commit.p50;
        let empty = of.backlog.first().map_or(f64::NAN, cost);
        of.backlog.iter().map(|depth| (depth.pending.max(100) as f64, cost(depth) / empty)).collect()
    };
    let words = ("Post and commit with a backlog, against an empty mailbox", "messages pending", "of empty");
    lines(report, &out.join("backlog.svg"), words, costs)?;
    let rates = |of: &Measured| {
        let first = of.age.portions.first().map_or(f64::NAN, |portion| portion.rate);
        of.age.portions.iter().map(|portion| (portion.messages as f64, portion.rate / first)).collect()
    };
    let words = ("Speed as the database grows, against its first fifth", "messages until then", "of first");
    lines(report, &out.join("age.svg"), words, rates)?;
    let sizes = |of: &Measured| {
        let stored = |portion: &Portion| (portion.messages as f64, of.age.stored(portion));
        of.age.portions.iter().map(stored).collect()
    };
    let words = ("What the database holds for each message it ever had", "messages until then", "bytes");
    lines(report, &out.join("sizes.svg"), words, sizes)
}

/// A bar for each target: how far it was reached.
fn targets(report: &Report, path: &Path) -> Result<()> {
    let rows = report.targets.len();
    let root = SVGBackend::new(path, (900, 80 + 18 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    // Each row has a whole number at its middle, where its label stands; the first one is on top.
    let mut chart = ChartBuilder::on(&root)
        .caption("Targets: how far the floor was reached (1 = floor)", ("sans-serif", 16))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(430)
        .build_cartesian_2d((0.1f64..10.0).log_scale(), 0.5..rows as f64 + 0.5)?;
    let label = |place: &f64| {
        let target = rows.checked_sub(place.round() as usize).and_then(|n| report.targets.get(n));
        target.map_or(String::new(), |target| {
            let sign = if target.less { "\u{2264}" } else { "\u{2265}" };
            let Target { backend, figure, measured, floor, .. } = target;
            format!("{backend} {figure}: {measured:.2} ({sign} {floor})")
        })
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows + 1)
        .y_label_formatter(&label)
        .label_style(("sans-serif", 11))
        .draw()?;
    for (n, target) in report.targets.iter().enumerate() {
        let (middle, color) = ((rows - n) as f64, if target.is_met() { &COLORS[1] } else { &COLORS[2] });
        let reached = target.reached().clamp(0.1, 10.0);
        let bar = [(reached.min(1.0), middle - 0.35), (reached.max(1.0), middle + 0.35)];
        chart.draw_series([Rectangle::new(bar, color.filled())])?;
    }
    Ok(root.present()?)
}

/// A line for each backend.
fn lines(
    report: &Report,
    path: &Path,
    (title, across, up): (&str, &str, &str),
    points: impl Fn(&Measured) -> Vec<(f64, f64)>,
) -> Result<()> {
    let finite = |of| points(of).into_iter().filter(|(place, value)| place.is_finite() && value.is_finite());
    let all: Vec<(f64, f64)> = report.backends.iter().flat_map(finite).collect();
    let most = all.iter().map(|(_, value)| *value).fold(1.0, f64::max) * 1.1;
    let (first, last) = all
        .iter()
        .fold((f64::INFINITY, 0.0), |(first, last), (place, _)| (place.min(first), place.max(last)));
    if first >= last {
        return Ok(());
    }
    let root = SVGBackend::new(path, (640, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    // The legend has a line of its own above: inside, it would hide what it explains.
    let (above, below) = root.titled(title, ("sans-serif", 16))?.split_vertically(24);
    for (n, (of, color)) in report.backends.iter().zip(COLORS.iter().cycle()).enumerate() {
        let x = 60 + 120 * n as i32;
        above.draw(&PathElement::new([(x, 12), (x + 20, 12)], color.stroke_width(2)))?;
        above.draw(&Text::new(of.name, (x + 26, 7), ("sans-serif", 12)))?;
    }
    let mut places: Vec<f64> = all.iter().map(|(place, _)| *place).collect();
    places.sort_by(f64::total_cmp);
    // What time ended is at another place for each backend: ticks that would overlap are left out.
    places.dedup_by(|next, kept| (*next / *kept).ln() < (last / first).ln() / 20.0);
    let mut chart = ChartBuilder::on(&below)
        .margin(10)
        .margin_right(40)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((first..last).log_scale().with_key_points(places), 0.0..most)?;
    let plain = |value: &f64| format!("{value:.0}");
    chart.configure_mesh().x_desc(across).y_desc(up).x_label_formatter(&plain).max_light_lines(0).draw()?;
    for (of, color) in report.backends.iter().zip(COLORS.iter().cycle()) {
        chart.draw_series(LineSeries::new(finite(of), color.stroke_width(2)).point_size(3))?;
    }
    Ok(root.present()?)
}
