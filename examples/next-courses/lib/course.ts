import type { ResourceRef } from "pdp-client/react";

export interface Course {
  readonly id: string;
  readonly title: string;
  readonly teacher: string;
  readonly summary: string;
  /** Who changed it last. */
  readonly changedBy: string | null;
}

/** What the PDP is asked about. It has stored the courses with their organization (pdp.yaml); what it has not stored
 * would be asked about with the `organizationId` of your own database. */
export function course(id: string): ResourceRef {
  return { type: "course", id };
}
