"use client";

// Permissions of an actor, for display in user interfaces. They guard nothing: the server must still guard each
// operation that is hidden here.
//
//   <PermissionsProvider permissions={set.toJSON()}>     set: the result of `can` on the server
//     <Can permission="course:edit" resource={{ type: "course", id }} fallback={<p>Read only</p>}>
//       <EditCourse />
//     </Can>
//   </PermissionsProvider>
//
// The children that a server component passes to <Can> are sent to the browser, shown or not. If they must not be,
// call `set.holds(...)` in the server component, or let a client component create them.

import { createContext, type ReactElement, type ReactNode, useContext, useMemo } from "react";
import { type Held, PermissionSet } from "./permissions.js";
import type { ResourceRef } from "./values.js";

export type { Held, PermissionSet, ResourceRef };

const Permissions = createContext<PermissionSet | null>(null);

export interface PermissionsProviderProps {
  /** The result of `PermissionSet.toJSON()` on the server. */
  readonly permissions: readonly Held[];
  readonly children?: ReactNode;
}

/** Provides the permissions to all components below it. The innermost provider counts. */
export function PermissionsProvider({ permissions, children }: PermissionsProviderProps): ReactElement {
  const set = useMemo(() => PermissionSet.fromJSON(permissions), [permissions]);
  return <Permissions.Provider value={set}>{children}</Permissions.Provider>;
}

/** The permissions. Throws if there is no <PermissionsProvider>: a mistake is not a denial. */
export function usePermissions(): PermissionSet {
  const set = useContext(Permissions);
  if (set === null) throw new Error("there is no <PermissionsProvider> above");
  return set;
}

export interface CanProps {
  readonly permission: string;
  /** The resource, of which type and id count; null, or left out: the permission needs none. */
  readonly resource?: ResourceRef | null;
  /** Shown if the permission does not hold. */
  readonly fallback?: ReactNode;
  readonly children?: ReactNode;
}

/**
 * Shows its children if a permission holds, otherwise the fallback. A permission that was not asked for does not
 * hold.
 */
export function Can({ permission, resource = null, fallback = null, children }: CanProps): ReactNode {
  return usePermissions().holds(permission, resource) ? children : fallback;
}
