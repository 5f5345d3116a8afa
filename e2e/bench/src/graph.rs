//! Graphs as SVG. Each brings its own ground, so that it can be read whatever the page's theme is.

use std::fmt::Write as _;

const STYLE: &str = "
  .ground { fill: #ffffff; stroke: #d0d7de; } text { fill: #1f2328; font: 13px system-ui, sans-serif; }
  .title { font-weight: 600; font-size: 15px; } .small { font-size: 12px; fill: #59636e; }
  .grid { stroke: #d0d7de; } .bar { stroke: #59636e; stroke-dasharray: 2 4; }
  .stroke0 { stroke: #8c959f; } .stroke1 { stroke: #0969da; } .stroke2 { stroke: #bc4c00; } .stroke0, .stroke1, .stroke2 { fill: none; stroke-width: 2; }
  .fill0 { fill: #8c959f; } .fill1 { fill: #0969da; } .fill2 { fill: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d; } text { fill: #f0f6fc; } .small { fill: #9198a1; } .grid { stroke: #3d444d; } .bar { stroke: #9198a1; }
    .stroke1 { stroke: #4493f8; } .stroke2 { stroke: #f0883e; } .fill1 { fill: #4493f8; } .fill2 { fill: #f0883e; }
  }";

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}\n</style>\n<rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n<text class=\"title\" x=\"20\" y=\"30\">{title}</text>\n",
        width - 1.0,
        height - 1.0
    )
}

fn text(svg: &mut String, class: &str, anchor: &str, x: f64, y: f64, content: &str) {
    let _ =
        writeln!(svg, "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>");
}

fn horizontal(svg: &mut String, class: &str, from: f64, to: f64, y: f64) {
    let _ = writeln!(svg, "<line class=\"{class}\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
}

/// One line of a graph.
pub(crate) struct Line {
    pub(crate) label: String,
    /// Which of the two colours.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    pub(crate) values: Vec<f64>,
}

/// Lines over evenly spaced positions; the vertical axis is logarithmic.
pub(crate) struct Lines {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) positions: Vec<String>,
    pub(crate) axis: &'static str,
    /// What the values are held against.
    pub(crate) bars: Vec<(f64, &'static str)>,
    pub(crate) series: Vec<Line>,
}

pub(crate) fn lines(graph: &Lines) -> String {
    let (width, height, left, right, top, bottom) = (800.0, 400.0, 80.0, 560.0, 60.0, 330.0);
    let (least, most) = (0.1_f64, 100.0_f64);
    let y = |value: f64| bottom - (value.clamp(least, most) / least).log10() / (most / least).log10() * (bottom - top);
    let count = graph.positions.len().max(2);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let x = |at: usize| left + 30.0 + (right - left - 60.0) * at as f64 / (count - 1) as f64;
    let mut svg = open(width, height, graph.title);
    for value in [0.1, 1.0, 10.0, 100.0] {
        horizontal(&mut svg, "grid", left, right, y(value));
        text(&mut svg, "small", "end", left - 8.0, y(value) + 4.0, &format!("{value} {}", graph.unit));
    }
    for (value, label) in &graph.bars {
        horizontal(&mut svg, "bar", left, right, y(*value));
        text(&mut svg, "small", "end", left - 8.0, y(*value) + 4.0, label);
    }
    for (at, position) in graph.positions.iter().enumerate() {
        text(&mut svg, "small", "middle", x(at), bottom + 20.0, position);
    }
    text(&mut svg, "small", "middle", f64::midpoint(left, right), bottom + 44.0, graph.axis);
    // Labels at the lines' ends, pushed apart where they would lie on each other.
    let mut ends: Vec<(f64, &Line)> = Vec::new();
    for line in &graph.series {
        let points: Vec<String> =
            line.values.iter().enumerate().map(|(at, value)| format!("{:.1},{:.1}", x(at), y(*value))).collect();
        let dashes = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ =
            writeln!(svg, "<polyline class=\"stroke{}\"{dashes} points=\"{}\"/>", line.colour + 1, points.join(" "));
        for (at, value) in line.values.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<circle class=\"fill{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                line.colour + 1,
                x(at),
                y(*value)
            );
        }
        ends.push((y(line.values.last().copied().unwrap_or(least)), line));
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = 0.0_f64;
    for (end, line) in ends {
        let at = end.max(lowest);
        lowest = at + 18.0;
        let value = line.values.last().copied().unwrap_or(f64::NAN);
        let _ = writeln!(
            svg,
            "<rect class=\"fill{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"3\"/>",
            line.colour + 1,
            right + 8.0,
            at - 2.0
        );
        let value = if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        text(&mut svg, "", "start", right + 24.0, at + 4.0, &format!("{}: {value} {}", line.label, graph.unit));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Bars of one panel: label and a value per series, group by group.
type Groups = Vec<(&'static str, Vec<f64>)>;

/// Groups of bars, in panels side by side.
pub(crate) struct Bars {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) series: Vec<&'static str>,
    pub(crate) panels: Vec<(String, Groups)>,
}

#[allow(clippy::cast_precision_loss, reason = "a handful")]
pub(crate) fn bars(graph: &Bars) -> String {
    let (height, left, top, bottom) = (400.0, 70.0, 100.0, 330.0);
    let (bar, gap) = (34.0, 30.0);
    let group = bar * graph.series.len() as f64 + gap;
    let panel = |groups: &Groups| group * groups.len() as f64;
    let width = left + graph.panels.iter().map(|(_, groups)| panel(groups) + 20.0).sum::<f64>() + 10.0;
    let values = graph.panels.iter().flat_map(|(_, groups)| groups).flat_map(|(_, values)| values);
    let most = values.copied().filter(|value| value.is_finite()).fold(1.0, f64::max);
    let step = [5.0, 10.0, 20.0, 50.0, 100.0, 200.0].into_iter().find(|step| most / step <= 6.0).unwrap_or(most);
    let y = |value: f64| bottom - value / (step * (most / step).ceil()) * (bottom - top);
    let mut svg = open(width, height, graph.title);
    let mut key = 20.0;
    for (at, series) in graph.series.iter().enumerate() {
        let _ = writeln!(svg, "<rect class=\"fill{at}\" x=\"{key:.1}\" y=\"46\" width=\"12\" height=\"12\"/>");
        text(&mut svg, "", "start", key + 18.0, 57.0, series);
        key += 40.0 + 7.0 * series.len() as f64;
    }
    let mut value = 0.0;
    while value <= most + step {
        if y(value) >= top - 1.0 {
            horizontal(&mut svg, "grid", left, width - 20.0, y(value));
            text(&mut svg, "small", "end", left - 8.0, y(value) + 4.0, &format!("{value:.0} {}", graph.unit));
        }
        value += step;
    }
    let mut from = left + 10.0;
    for (name, groups) in &graph.panels {
        text(&mut svg, "", "middle", from + panel(groups) / 2.0, bottom + 46.0, name);
        for (at, (label, values)) in groups.iter().enumerate() {
            let start = from + group * at as f64 + gap / 2.0;
            for (series, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
                let x = start + bar * series as f64;
                let _ = writeln!(
                    svg,
                    "<rect class=\"fill{series}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    y(*value),
                    bar - 3.0,
                    bottom - y(*value)
                );
                text(&mut svg, "small", "middle", x + (bar - 3.0) / 2.0, y(*value) - 5.0, &format!("{value:.0}"));
            }
            text(&mut svg, "small", "middle", start + (group - gap) / 2.0, bottom + 20.0, label);
        }
        from += panel(groups) + 20.0;
    }
    svg.push_str("</svg>\n");
    svg
}

/// One figure over the positions that all panels share.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bar: Option<f64>,
    pub(crate) values: Vec<f64>,
}

/// Figures with a unit each, three panels in a row; every vertical axis begins at 0.
#[allow(clippy::cast_precision_loss, reason = "a handful")]
pub(crate) fn panels(title: &str, axis: &str, positions: &[String], all: &[Panel]) -> String {
    let (wide, high, columns) = (330.0, 240.0, 3);
    let rows = all.len().div_ceil(columns);
    let mut svg = open(wide * columns as f64 + 20.0, high * rows as f64 + 60.0, title);
    for (number, panel) in all.iter().enumerate() {
        let (left, top) = (wide * (number % columns) as f64 + 60.0, high * (number / columns) as f64 + 80.0);
        let (right, bottom) = (left + wide - 80.0, top + high - 90.0);
        let known = panel.values.iter().copied().filter(|value| value.is_finite()).chain(panel.bar);
        let most = known.fold(1e-9, f64::max) * 1.1;
        let y = |value: f64| bottom - value / most * (bottom - top);
        let x = |at: usize| left + 14.0 + (right - left - 28.0) * at as f64 / (positions.len().max(2) - 1) as f64;
        let unit = if panel.unit.is_empty() { String::new() } else { format!(", {}", panel.unit) };
        text(&mut svg, "", "start", left - 40.0, top - 14.0, &format!("{}{unit}", panel.title));
        horizontal(&mut svg, "grid", left, right, bottom);
        text(&mut svg, "small", "end", left - 6.0, bottom + 4.0, "0");
        if let Some(bar) = panel.bar {
            horizontal(&mut svg, "bar", left, right, y(bar));
            text(&mut svg, "small", "end", left - 6.0, y(bar) + 4.0, &format!("{bar}"));
        }
        let points: Vec<String> =
            panel.values.iter().enumerate().map(|(at, value)| format!("{:.1},{:.1}", x(at), y(*value))).collect();
        let _ = writeln!(svg, "<polyline class=\"stroke1\" points=\"{}\"/>", points.join(" "));
        for (at, value) in panel.values.iter().enumerate() {
            let _ = writeln!(svg, "<circle class=\"fill1\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(at), y(*value));
            let digits = if *value < 2.0 { 2 } else { usize::from(*value < 10.0) };
            let label = format!("{value:.digits$}");
            text(&mut svg, "small", "middle", x(at), y(*value) - 7.0, &label);
            text(&mut svg, "small", "middle", x(at), bottom + 18.0, positions.get(at).map_or("", String::as_str));
        }
        text(&mut svg, "small", "middle", f64::midpoint(left, right), bottom + 36.0, axis);
    }
    svg.push_str("</svg>\n");
    svg
}
