//! Series as CSV, one point a row: `chart,series,x_unit,x,y_unit,y`. Nothing is thinned or rounded.

use std::io::{self, Write};

use super::Chart;

/// Writes the points of all charts.
pub fn write(charts: &[Chart], out: impl Write) -> io::Result<()> {
    let mut rows = ::csv::Writer::from_writer(out);
    rows.write_record(["chart", "series", "x_unit", "x", "y_unit", "y"])?;
    for chart in charts {
        for series in &chart.series {
            for (x, y) in &series.points {
                let (x, y) = (x.to_string(), y.to_string());
                rows.write_record([&chart.title, &series.name, &chart.unit_x, &x, &chart.unit_y, &y])?;
            }
        }
    }
    rows.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn every_point_is_a_row_with_units_and_quotes_where_needed() {
        let series = vec![Series::new("a,b", vec![(0.0, 1.5), (0.1, 1e-7)])];
        let chart = Chart::over_time("busy \"GPUs\"", "h", "GPU", series);
        let mut out = Vec::new();
        write(&[chart], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = "chart,series,x_unit,x,y_unit,y\n\"busy \"\"GPUs\"\"\",\"a,b\",h,0,GPU,1.5\n\"busy \"\"GPUs\"\"\",\"a,b\",h,0.1,GPU,0.0000001\n";
        assert_eq!(text, wanted);
    }
}
