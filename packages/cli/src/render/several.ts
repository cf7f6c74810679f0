import type { EditPlan } from '@tidemark/qcow2'
import type { PlanAction } from '../bitmap/plan-file.js'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { costText, planToJson, stepsToJson } from './edit.js'
import { planToText } from './edit-plan-text.js'
import { table } from './table.js'

/** What was done to one of several images, or would be. */
export interface ShownImage {
  readonly filename: string
  readonly actions: readonly PlanAction[]
  readonly plan: EditPlan
  readonly resizable: boolean
}

/** More are counted: the plan has all. */
const MOST_ACTIONS = 6

export function severalSummary(images: readonly ShownImage[]): string {
  const clusters = images.reduce((sum, { plan }) => sum + plan.cost.allocated, 0)
  const count = `${images.length} ${images.length === 1 ? 'image' : 'images'}`
  return `${count} edited as one; ${clusters} ${clusters === 1 ? 'cluster' : 'clusters'} written`
}

/** All images at a glance, then the steps of each. */
export function severalToText(images: readonly ShownImage[], journal: string, colors: Colors): string {
  const rows = images.map(({ filename, actions, plan }) => [
    printable(filename),
    printable(actionsText(actions)),
    String(plan.cost.allocated),
    String(plan.cost.freed),
    formatSize(plan.cost.growth),
    switchText(plan),
  ])
  const head = ['IMAGE', 'WHAT', 'WRITTEN', 'GIVEN BACK', 'GROWS BY', 'SWITCH']
  const parts = [
    'dry run: nothing was written. All of it would be done, or nothing:\n\n',
    table(rows, { head, right: [2, 3, 4] }),
    `\nWhat is under way stands in ${printable(journal)} meanwhile. All images are prepared and marked,\n`,
    'then all are switched, then the marks go and old clusters become free.\n',
  ]
  for (const { filename, plan, resizable } of images) {
    parts.push('\n', planToText({ filename, plan, resizable, summary: costText(plan) }, colors))
  }
  return parts.join('')
}

function actionsText(actions: readonly PlanAction[]): string {
  const shown = actions.slice(0, MOST_ACTIONS).map(action => {
    switch (action.action) {
      case 'rename':
        return `rename ${action.name} to ${action.to}`
      case 'merge':
        return `merge ${action.source}${action.from === undefined ? '' : ` of ${action.from}`} into ${action.name}`
      default:
        return `${action.action} ${action.name}`
    }
  })
  const rest = actions.length - shown.length
  return `${shown.join(', ')}${rest === 0 ? '' : ` and ${rest} more`}`
}

/** How many writes the switch takes, each in one sector. */
function switchText({ steps }: EditPlan): string {
  const writes = steps.filter(({ name }) => name === 'header')
  if (writes.length === 0) return 'nothing to do'
  const [first] = writes[0]!.writes
  if (writes.length > 1) return `${writes.length} writes to the header`
  return first?.kind === 'bytes' ? `${first.bytes.byteLength} bytes at ${first.offset}` : ''
}

export function severalToJson(
  images: readonly ShownImage[],
  { dryRun, journal }: { readonly dryRun: boolean; readonly journal: string },
): Record<string, unknown> {
  return {
    'dry-run': dryRun,
    journal,
    images: images.map(({ filename, actions, plan, resizable }) => ({
      filename,
      actions: actions.map(actionToJson),
      ...planToJson(plan),
      ...(dryRun ? { steps: stepsToJson(plan, resizable) } : {}),
    })),
  }
}

/** As the plan has it. */
function actionToJson(action: PlanAction): Record<string, unknown> {
  if (action.action !== 'merge') return { ...action }
  const { from, ...rest } = action
  return { ...rest, ...(from === undefined ? {} : { 'source-filename': from }) }
}
