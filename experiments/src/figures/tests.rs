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
