import { type Json, toKebab } from '../plan/json.js'
import type { OperationsPlan } from './types.js'

/**
 * The plan as the command line prints it: keys in kebab-case, a problem's evidence beside its `code`, `severity`, `disk` and
 * `message`. `layer` is an index from the top, or `target` or `overlay` for an image that is made on the way.
 */
export function operationsToJson(plan: OperationsPlan): { readonly [key: string]: Json } {
  const problems = plan.problems.map(({ evidence, ...rest }) => ({ ...evidence, ...rest }))
  return toKebab({ ...plan, problems }) as { readonly [key: string]: Json }
}
