// What a dashboard may be made of, as Grafana's own types say, for JSON: tests/it/the_dashboard_is_sound.rs writes
// constants of these types beside a copy of this file and lets the TypeScript compiler judge.
//
// Refuses what the types call optional extras in general, but know the names of: members nobody knows, and panels of other
// kinds than these four.

import type { Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel } from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** A type as it is in JSON, where a member of an enumeration is its value. */
type Json<T> = T extends string
  ? `${T}`
  : T extends (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Name in keyof T]: Json<T[Name]> }
      : T;

/** A query of Prometheus' editor; the schema leaves targets open. */
interface Target {
  refId: string;
  datasource: { type: "prometheus"; uid: string };
  expr: string;
  legendFormat: string;
  editorMode: "code";
  format: "time_series" | "table" | "heatmap";
  instant: boolean;
  range: boolean;
}

/** A panel of a kind, whose options and field options are that kind's and no other's. */
type PanelOf<Kind extends string, Options, Custom> = Json<
  Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
    type: Kind;
    options: Options;
    fieldConfig: Omit<FieldConfigSource, "defaults"> & {
      defaults: Omit<FieldConfig, "custom"> & { custom?: Custom };
    };
    targets: Target[];
  }
>;

export type TimeSeriesPanel = PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>;
export type StatPanel = PanelOf<"stat", stat.Options, never>;
export type TablePanel = PanelOf<"table", table.Options, table.FieldConfig>;
export type HeatmapPanel = PanelOf<"heatmap", heatmap.Options, heatmap.FieldConfig>;
export type Row = Json<Omit<RowPanel, "panels"> & { panels: never[] }>;
export type Variable = Json<VariableModel>;
export type Rest = Json<Omit<Dashboard, "panels" | "templating">>;
