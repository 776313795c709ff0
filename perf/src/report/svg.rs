//! Charts as inline SVG: bars, latency percentiles, loss over rate. Colours come from the page's style sheet, so that
//! they follow light and dark.

use std::fmt::Write as _;

use super::{SideReport, short};
use crate::metric::Metric;

/// Colours there are (`.c0` to `.c7` of the style sheet).
const COLOURS: usize = 8;
const WIDTH: f64 = 720.0;
const LABELS: f64 = 230.0;
const FIGURES: f64 = 130.0;
const BAR: f64 = 24.0;
/// Size and margins of charts with axes.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Text with what HTML gives a meaning replaced.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A horizontal bar a side with its median and ratio; thin marks are the single rounds.
#[allow(clippy::cast_precision_loss, reason = "a handful of sides")]
pub(super) fn bars(sides: &[SideReport], metric: Metric) -> String {
    let figures: Vec<_> = sides.iter().filter_map(|side| Some((side, side.figure(metric)?))).collect();
    let rounds = figures.iter().flat_map(|(_, figure)| &figure.rounds);
    let largest = rounds.copied().fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - FIGURES) / largest;
    let mut svg = open(BAR.mul_add(figures.len() as f64, 8.0), &format!("{} of each side", metric.title()));
    for (at, (side, figure)) in figures.iter().enumerate() {
        let y = BAR.mul_add(at as f64, 4.0);
        let middle = y + 15.0;
        svg.push_str(&bar(at, &side.side.to_string(), figure.median * scale));
        for round in &figure.rounds {
            let x = round.mul_add(scale, LABELS);
            let _ = write!(svg, "<line class='mark' x1='{x:.1}' x2='{x:.1}' y1='{y:.0}' y2='{:.0}'/>", y + 18.0);
        }
        let end = figure.rounds.iter().copied().fold(figure.median, f64::max).mul_add(scale, LABELS + 8.0);
        let ratio = figure.ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2})"));
        let _ = write!(svg, "<text x='{end:.0}' y='{middle:.0}'>{}{ratio}</text>", short(figure.median));
    }
    svg + "</svg>"
}

/// A horizontal bar a name with its value.
#[allow(clippy::cast_precision_loss, reason = "a handful of bars")]
pub(super) fn values(title: &str, rows: &[(&str, f64)]) -> String {
    let largest = rows.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - FIGURES) / largest;
    let mut svg = open(BAR.mul_add(rows.len() as f64, 8.0), title);
    for (at, (name, value)) in rows.iter().enumerate() {
        svg.push_str(&bar(at, name, value * scale));
        let (x, y) = (value.mul_add(scale, LABELS + 8.0), BAR.mul_add(at as f64, 19.0));
        let _ = write!(svg, "<text x='{x:.1}' y='{y:.0}'>{}</text>", short(*value));
    }
    svg + "</svg>"
}

/// The bar at a place from the top, and its name.
#[allow(clippy::cast_precision_loss, reason = "a handful of bars")]
fn bar(at: usize, name: &str, length: f64) -> String {
    let (y, colour, name) = (BAR.mul_add(at as f64, 4.0), at % COLOURS, escape(name));
    format!(
        "<text class='label' x='{:.0}' y='{:.0}'>{name}</text>\
         <rect class='c{colour}' x='{LABELS}' y='{y:.0}' width='{:.1}' height='18' rx='2'/>",
        LABELS - 10.0,
        y + 15.0,
        length.max(1.0)
    )
}

/// Latency over percentile, the axis of latency logarithmic.
pub(super) fn percentiles(sides: &[SideReport]) -> String {
    const STEPS: [(Metric, &str); 5] = [
        (Metric::P50Us, "50"),
        (Metric::P90Us, "90"),
        (Metric::P99Us, "99"),
        (Metric::P999Us, "99.9"),
        (Metric::MaxUs, "max"),
    ];
    let lines = sides.iter().map(|side| {
        let points = (0_u8..).zip(STEPS).filter_map(|(at, (metric, _))| {
            let value = side.figure(metric)?.median;
            (value > 0.0).then(|| (f64::from(at), value.log10()))
        });
        (side.side.to_string(), points.collect())
    });
    let ticks = (0_u8..).zip(STEPS).map(|(at, (_, name))| (f64::from(at), name.to_owned())).collect();
    let axes = Axes { title: "latency percentiles", x: "percentile", y: "us", x_ticks: ticks, decades: true };
    chart(&axes, &lines.collect::<Vec<_>>())
}

/// Percent of loss over the offered rate.
pub(super) fn loss(sides: &[SideReport]) -> String {
    let line = |side: &SideReport| {
        let points = side.loss_curve.iter().map(|point| (point.kpps, 100.0 * point.loss)).collect();
        (side.side.to_string(), points)
    };
    let lines: Vec<_> = sides.iter().filter(|side| !side.loss_curve.is_empty()).map(line).collect();
    let largest = lines.iter().flat_map(|(_, points): &Line| points).map(|(x, _)| *x).fold(1.0, f64::max);
    let ticks = (0..=4_u8).map(|part| f64::from(part) * largest / 4.0).map(|x| (x, short(x))).collect();
    let axes = Axes { title: "loss over rate", x: "kpps offered", y: "% lost", x_ticks: ticks, decades: false };
    chart(&axes, &lines)
}

type Line = (String, Vec<(f64, f64)>);

/// The axes of a chart; with `decades`, y is a power of ten.
struct Axes {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    x_ticks: Vec<(f64, String)>,
    decades: bool,
}

#[allow(clippy::cast_precision_loss, reason = "a handful of lines")]
fn chart(axes: &Axes, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let x_max = axes.x_ticks.iter().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max);
    let (mut low, mut high) = (0.0, all().map(|(_, y)| *y).fold(1.0, f64::max));
    if axes.decades {
        (low, high) = (all().map(|(_, y)| *y).fold(high, f64::min).floor(), high.ceil());
    }
    let at_x = |x: f64| x / x_max * (WIDTH - LEFT - RIGHT) + LEFT;
    let at_y = |y: f64| (high - y) / (high - low).max(1e-9) * (HEIGHT - TOP - BOTTOM) + TOP;
    let mut svg = open(HEIGHT, axes.title);
    let steps = if axes.decades { (high - low).max(1.0) } else { 4.0 };
    let mut step = 0.0;
    while step <= steps {
        let value = low + (high - low) * step / steps;
        let (y, shown) = (at_y(value), if axes.decades { 10_f64.powf(value) } else { value });
        let _ = write!(svg, "<line class='grid' x1='{LEFT}' x2='{:.0}' y1='{y:.1}' y2='{y:.1}'/>", WIDTH - RIGHT);
        let _ = write!(svg, "<text class='label' x='{:.0}' y='{:.0}'>{}</text>", LEFT - 8.0, y + 4.0, short(shown));
        step += 1.0;
    }
    for (x, name) in &axes.x_ticks {
        let _ = write!(svg, "<text class='tick' x='{:.0}' y='{:.0}'>{name}</text>", at_x(*x), HEIGHT - BOTTOM + 18.0);
    }
    let middle = at_x(x_max / 2.0);
    let _ = write!(svg, "<text class='tick' x='{middle:.0}' y='{:.0}'>{}</text>", HEIGHT - 6.0, axes.x);
    let _ = write!(svg, "<text class='label' x='{:.0}' y='{:.0}'>{}</text>", LEFT - 8.0, HEIGHT - 6.0, axes.y);
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = at % COLOURS;
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
        let _ = write!(svg, "<polyline class='s{colour}' points='{}'/>", path.join(" "));
        for (x, y) in points {
            let _ = write!(svg, "<circle class='c{colour}' cx='{:.1}' cy='{:.1}' r='3'/>", at_x(*x), at_y(*y));
        }
        let (x, y) = (WIDTH - RIGHT + 16.0, 20.0_f64.mul_add(at as f64, TOP));
        let _ = write!(svg, "<rect class='c{colour}' x='{x:.0}' y='{y:.0}' width='12' height='12'/>");
        let _ = write!(svg, "<text x='{:.0}' y='{:.0}'>{}</text>", x + 18.0, y + 11.0, escape(name));
    }
    svg + "</svg>"
}

fn open(height: f64, title: &str) -> String {
    let title = escape(title);
    format!("<svg viewBox='0 0 {WIDTH} {height:.0}' role='img' aria-label='{title}'><title>{title}</title>")
}
