// Validates objects of the Prometheus operator, a JSON list on standard input, by the schemas of their kinds.
// `make test-all` copies it to the folder of its modules.
import { readFileSync } from "node:fs";
import * as v1 from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import * as v1alpha1 from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1alpha1";

const kinds = { ...v1, ...v1alpha1 };
for (const object of JSON.parse(readFileSync(0))) {
  try {
    new kinds[object.kind](object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
