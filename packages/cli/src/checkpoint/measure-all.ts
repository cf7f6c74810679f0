import { bodyQueries, type Measurements, planEveryCheckpoint } from '@tidemark/planner'
import { measureBodies } from '@tidemark/planner/node'
import type { OpenDomain } from './with-domain.js'

/** What the bodies say of each checkpoint; one after the other, by its name. */
export async function measureAll({
  facts,
  images,
  engine,
  dialect,
}: Pick<OpenDomain, 'facts' | 'images' | 'engine' | 'dialect'>): Promise<ReadonlyMap<string, Measurements>> {
  const measurements = new Map<string, Measurements>()
  for (const plan of planEveryCheckpoint(facts, { dialect })) {
    measurements.set(plan.incremental, await measureBodies(images, bodyQueries(facts, plan), engine))
  }
  return measurements
}
