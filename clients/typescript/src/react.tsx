"use client";

// What somebody may, for user interfaces to show. It guards nothing: what is hidden here is still guarded where it
// is done.
//
//   <PermissionsProvider permissions={set.toJSON()}>     set: of `can`, asked on the server
//     <Can permission="course:edit" resource={{ type: "course", id }} fallback={<p>Read only</p>}>
//       <EditCourse />
//     </Can>
//   </PermissionsProvider>
//
// The children that a server component hands to <Can> travel to the browser, shown or not. Where they must not,
// ask `set.holds(...)` in the server component, or let a client component make them.

import { createContext, type ReactElement, type ReactNode, useContext, useMemo } from "react";
import { type Held, PermissionSet } from "./permissions.js";
import type { ResourceRef } from "./values.js";

export type { Held, PermissionSet, ResourceRef };

const Permissions = createContext<PermissionSet | null>(null);

export interface PermissionsProviderProps {
  /** What `PermissionSet.toJSON()` gave on the server. */
  readonly permissions: readonly Held[];
  readonly children?: ReactNode;
}

/** Gives what holds to all that is below it. Of two, one inside of the other, the inner one counts. */
export function PermissionsProvider({ permissions, children }: PermissionsProviderProps): ReactElement {
  const set = useMemo(() => PermissionSet.fromJSON(permissions), [permissions]);
  return <Permissions.Provider value={set}>{children}</Permissions.Provider>;
}

/** What holds. Throws where there is no <PermissionsProvider>: a mistake is not a "no". */
export function usePermissions(): PermissionSet {
  const set = useContext(Permissions);
  if (set === null) throw new Error("there is no <PermissionsProvider> above");
  return set;
}

export interface CanProps {
  readonly permission: string;
  /** What it is about, of which type and id count; null, or left out: the permission needs none. */
  readonly resource?: ResourceRef | null;
  /** Shown where it does not hold. */
  readonly fallback?: ReactNode;
  readonly children?: ReactNode;
}

/** Shows its children where a permission holds, and else the fallback. What was not asked does not hold. */
export function Can({ permission, resource = null, fallback = null, children }: CanProps): ReactNode {
  return usePermissions().holds(permission, resource) ? children : fallback;
}
