// Draws the charts from the data in the page; colours come from the style sheet, again when light and dark change.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const coarse = matchMedia("(pointer: coarse)").matches;

  const coloured = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((each) => coloured(each, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each, style)]));
    }
    return value;
  };

  const draw = (place) => {
    const chart = charts[place.dataset.chart];
    if (!chart) return;
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = coloured({ data: chart.data, layout: chart.layout }, style);
    layout.font.family = style.getPropertyValue("--sans");
    layout.height = chart.height;
    if (coarse) for (const axis of ["xaxis", "yaxis"]) layout[axis].fixedrange = true;
    Plotly.react(place, data, layout, { responsive: true, displayModeBar: false, scrollZoom: false });
    place.dataset.drawn = place.dataset.chart;
  };

  const all = () => document.querySelectorAll(".chart").forEach(draw);
  document.querySelectorAll("input[data-for]").forEach((choice) =>
    choice.addEventListener("change", () => {
      const place = document.getElementById(choice.dataset.for);
      place.dataset.chart = choice.value;
      draw(place);
    }),
  );
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
})();
