use super::*;

fn sample() -> Figure {
    let x = vec![100.0, 1000.0, 10000.0];
    Figure {
        name: "excess_risk".to_owned(),
        title: "Excess risk & <test> size".to_owned(),
        x: Axis::log("Samples n"),
        y: Axis::log("Excess risk ‖A‖²"),
        series: vec![
            Series::line("LoRA-ML", 0, x.clone(), vec![2e-2, 2.1e-3, 2.2e-4])
                .with_interval(vec![8e-3, 9e-4, 1e-4], vec![5e-2, 5e-3, 5e-4]),
            Series::points("standard", 1, x.clone(), vec![14.0, 12.0, 11.8])
                .with_interval(vec![5.0, 4.5, 4.2], vec![40.0, 33.0, 32.0]),
            Series::dashed("theory", 0, x, vec![1.9e-2, 1.9e-3, 1.9e-4]),
        ],
        description: "Mean over seeds.".to_owned(),
    }
}

/// Text of an SVG's `<desc>`.
fn description(svg: &str) -> &str {
    let start = svg.find("<desc").and_then(|i| svg[i..].find('>').map(|j| i + j + 1)).unwrap();
    &svg[start..start + svg[start..].find("</desc>").unwrap()]
}

#[test]
fn an_svg_reads_back_as_the_figure_it_shows() {
    let figure = sample();
    let svg = figure.to_svg().unwrap();
    assert_eq!(Figure::from_svg(&svg).unwrap(), figure);
    assert_eq!(Figure::from_svg(&svg).unwrap().to_svg().unwrap(), svg);
    // Negative control: another value gives another document.
    let mut other = figure;
    other.series[0].y[1] = f64::from_bits(other.series[0].y[1].to_bits() + 1);
    assert_ne!(other.to_svg().unwrap(), svg);
}

#[test]
fn documents_without_a_figure_are_refused() {
    assert!(matches!(Figure::from_svg("<svg></svg>"), Err(FigureError::NoMetadata)));
    let broken = "<metadata class=\"figure\">{\"figure\":[1]}</metadata>";
    assert!(matches!(Figure::from_svg(broken), Err(FigureError::Metadata(_))));
}

#[test]
fn text_is_escaped_and_said_to_screen_readers() {
    let svg = sample().to_svg().unwrap();
    assert!(svg.contains("Excess risk &amp; &lt;test&gt; size</title>"));
    assert!(!svg.contains("<test>"));
    assert_eq!(description(&svg), "Mean over seeds.");
    assert!(svg.contains("role=\"img\""));
}

#[test]
fn every_series_has_its_group_and_the_legend_names_all() {
    let svg = sample().to_svg().unwrap();
    for i in 0..3 {
        assert!(svg.contains(&format!("data-series=\"{i}\"")));
        assert!(svg.contains(&format!("class=\"legend\" data-series=\"{i}\"")));
    }
    assert!(svg.contains("stroke-dasharray"));
}

#[test]
fn what_cannot_be_drawn_is_left_out_and_said() {
    let mut figure = sample();
    figure.series[0].y = vec![0.0, f64::NAN, 2.2e-4];
    figure.series[1].low = Some(vec![-1.0, 4.5]);
    figure.series[2].x.push(5.0);
    let svg = figure.to_svg().unwrap();
    let said = description(&svg);
    assert!(said.contains("&quot;LoRA-ML&quot;: 2 points left out"), "{said}");
    // One end is negative, one is missing.
    assert!(said.contains("&quot;standard&quot;: 2 ends of intervals left out"), "{said}");
    assert!(said.contains("&quot;theory&quot; has 4 abscissae and 3 ordinates"), "{said}");
    let drawn = Figure::from_svg(&svg).unwrap();
    assert_eq!(drawn.series[0].y, vec![2.2e-4]);
    assert_eq!(drawn.series[1].low, Some(vec![14.0, 4.5, 11.8]));
    // Drawn again, the notes are not repeated.
    assert_eq!(drawn.to_svg().unwrap(), svg);
    // On a linear axis zero and negative values are values like others.
    figure.y.scale = Scale::Linear;
    let drawn = Figure::from_svg(&figure.to_svg().unwrap()).unwrap();
    assert_eq!(drawn.series[0].y, vec![0.0, 2.2e-4]);
}

#[test]
fn hard_figures_are_drawn() {
    let huge = f64::MAX;
    let columns = [
        vec![],
        vec![0.0],
        vec![3.25; 40],
        vec![f64::NAN; 3],
        vec![f64::INFINITY, f64::NEG_INFINITY],
        vec![-huge, huge],
        vec![-1e300, 1e300],
        vec![f64::MIN_POSITIVE, 5e-324, 1e300],
        vec![1.0, 1.0 + f64::EPSILON],
        vec![-0.0, 0.0],
        vec![1e-300, 2e-300],
    ];
    let styles = [Style::Line, Style::Band, Style::Points, Style::Dashed, Style::Cells];
    for x in &columns {
        for y in &columns {
            for scale in [Scale::Linear, Scale::Log] {
                let series = styles.map(|style| Series {
                    style,
                    label: "s\u{0}\u{7}<&\"".to_owned(),
                    x: x.clone(),
                    y: y.clone(),
                    low: Some(y.iter().map(|v| v / 2.0).collect()),
                    high: Some(y.iter().rev().copied().collect()),
                    colour: usize::MAX,
                });
                let axis = Axis { label: "axis".to_owned(), scale };
                let figure = Figure {
                    x: axis.clone(),
                    y: axis,
                    series: series.to_vec(),
                    ..Figure::default()
                };
                let svg = figure.to_svg().unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{x:?} {y:?}");
                assert!(!svg.contains('\u{0}'), "XML holds no control characters");
                assert!(svg.len() < 100_000, "{} bytes for {x:?} {y:?}", svg.len());
            }
        }
    }
    Figure { series: vec![Series::default()], ..Figure::default() }.to_png().unwrap();
}

/// A heat map with shares in percent.
fn heat_map() -> Figure {
    let row = |label: &str, x: &[f64], y: &[f64]| Series {
        style: Style::Cells,
        ..Series::line(label, 0, x.to_vec(), y.to_vec())
    };
    Figure {
        name: "heat".to_owned(),
        title: "Percent of runs".to_owned(),
        x: Axis::linear("dimension d"),
        y: Axis::linear("percent"),
        series: vec![
            row("k = 1, T = 3", &[16.0, 4.0], &[0.0, 1.5]),
            row("k = 3, T = 10", &[4.0, 8.0], &[25.0, 0.25]),
        ],
        description: String::new(),
    }
}

#[test]
fn a_heat_map_has_a_cell_a_value_its_number_in_it_and_darker_cells_for_more() {
    let figure = heat_map();
    let svg = figure.to_svg().unwrap();
    assert_eq!(Figure::from_svg(&svg).unwrap(), figure);
    let rectangles: Vec<&str> =
        svg.lines().filter(|line| line.starts_with("<rect") && !line.contains("#FFFFFF")).collect();
    assert_eq!(rectangles.len(), 4, "one a value");
    for text in ["k = 1, T = 3", "k = 3, T = 10", "1.5", "25", "0.25", "dimension d"] {
        assert!(svg.contains(text), "{text}");
    }
    // Rows in their order from the top, columns ascending: the dark cell is the lower left one.
    let number = |line: &str, key: &str| -> f64 {
        let start = line.find(key).unwrap() + key.len();
        line[start..].split('"').next().unwrap().parse().unwrap()
    };
    let dark = rectangles.iter().find(|line| line.contains("#004276")).unwrap();
    for other in &rectangles {
        assert!(number(dark, " x=\"") <= number(other, " x=\""));
        assert!(number(dark, " y=\"") >= number(other, " y=\""));
    }
    assert!(figure.to_png().unwrap().len() > 1000);
    // Negative control: one series of another style, and it is no heat map.
    let mut mixed = figure;
    mixed.series[0].style = Style::Points;
    assert!(!mixed.is_heat_map() && !mixed.to_svg().unwrap().contains("#004276"));
}

#[test]
fn cells_are_readable_and_in_order_for_every_colour_vision() {
    use super::palette;
    // Relative luminance and contrast of WCAG 2.2.
    let luminance = |c: plotters::style::RGBColor| {
        let linear = |v: u8| match f64::from(v) / 255.0 {
            v if v <= 0.04045 => v / 12.92,
            v => ((v + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * linear(c.0) + 0.7152 * linear(c.1) + 0.0722 * linear(c.2)
    };
    let mut last = f64::INFINITY;
    for step in 0..=100 {
        let share = f64::from(step) / 100.0;
        let (cell, ink) = (luminance(palette::heat(share)), luminance(palette::ink_on(share)));
        assert!(cell < last, "darker with every step: one order for all");
        let contrast = (cell.max(ink) + 0.05) / (cell.min(ink) + 0.05);
        assert!(contrast >= 4.5, "{share}: {contrast}");
        last = cell;
    }
}

#[test]
fn nan_survives_json_as_null() {
    let mut figure = sample();
    figure.series[0].y[0] = f64::NAN;
    let text = serde_json::to_string(&figure).unwrap();
    let back: Figure = serde_json::from_str(&text).unwrap();
    assert!(back.series[0].y[0].is_nan());
    assert_eq!(back.series[1], figure.series[1]);
}

#[test]
fn a_png_has_the_size_of_a_column_at_300_dots_per_inch_and_ink_of_every_colour() {
    let png = sample().to_png().unwrap();
    assert_eq!(png, sample().to_png().unwrap());
    let mut reader = ::png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.width, 1125);
    let has = |colour: plotters::style::RGBColor| {
        pixels.chunks_exact(3).any(|dot| dot == [colour.0, colour.1, colour.2])
    };
    for group in 0..2 {
        assert!(has(palette::colour(group)));
    }
    // Letters are drawn: ink of text occurs; a colour of no series does not.
    assert!(has(palette::INK));
    assert!(!has(palette::colour(2)));
}

#[test]
fn the_embedded_font_has_every_character_of_labels() {
    use ab_glyph::Font;
    let fonts = text::Fonts::new().unwrap();
    for c in "0123456789\u{2212}×.,½‖²³ᵀαβγδεκλμρστφ≤≥–—’*".chars() {
        assert_ne!(fonts.face(false).glyph_id(c).0, 0, "no glyph for {c}");
    }
}

/// Every text of a figure as its left end, right end and baseline.
fn extents(layout: &layout::Layout, fonts: &text::Fonts) -> Vec<(f64, f64, f64)> {
    let left = |line: &layout::Line, em: f64, bold: bool| {
        (line.x, line.x + fonts.width(&line.text, em, bold), line.baseline)
    };
    let mut all: Vec<_> = layout.title.iter().map(|l| left(l, layout::TITLE_EM, true)).collect();
    for entry in &layout.legend {
        all.extend(entry.lines.iter().map(|l| {
            let (from, to, baseline) = left(l, layout::LEGEND_EM, false);
            (from - layout::SAMPLE, to, baseline)
        }));
    }
    let (from, _, to, _) = layout.plot;
    for tick in &layout.x.ticks {
        if let Some(label) = &tick.label {
            let x = from + (tick.at - layout.x.from) / (layout.x.to - layout.x.from) * (to - from);
            let half = 0.5 * fonts.width(label, layout::TICK_EM, false);
            all.push((x - half, x + half, layout.height - 20.0));
        }
    }
    all
}

#[test]
fn no_text_is_cut_and_no_entries_of_the_legend_overlap() {
    let fonts = text::Fonts::new().unwrap();
    for words in [1, 3, 9, 30] {
        for magnitude in [1e-7, 1.0, 123_456.0, 1e9] {
            let label = |i: usize| vec![format!("method{i}"); words].join(" ");
            let x: Vec<f64> = (1..40).map(|i| f64::from(i) * magnitude).collect();
            let series = (0..7).map(|i| Series::line(label(i), i, x.clone(), x.clone()));
            let figure = Figure {
                title: label(9),
                x: Axis::linear(label(8)),
                y: Axis::log(label(7)),
                series: series.collect(),
                ..Figure::default()
            };
            let layout = layout::Layout::new(&figure, &fonts, false);
            let all = extents(&layout, &fonts);
            for &(from, to, _) in &all {
                assert!(from >= 0.0 && to <= layout::WIDTH, "{from}..{to} for {words} words");
            }
            for (i, a) in all.iter().enumerate() {
                for b in &all[i + 1..] {
                    let apart = a.1 <= b.0 || b.1 <= a.0 || (a.2 - b.2).abs() >= 9.0;
                    let ticks = a.2 == layout.height - 20.0 && b.2 == a.2;
                    assert!(apart || ticks, "{a:?} and {b:?} overlap");
                }
            }
        }
    }
}
