-- The health of every kind of pgrail in Argo CD. See the page "GitOps" of the book for how to install it.
local function shown(status, message)
  return {status = status, message = message}
end

if obj.metadata.deletionTimestamp ~= nil then
  return shown("Progressing", "it is being deleted")
end
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return shown("Progressing", "the operator has not observed the last change")
end
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function message(condition)
  if condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return condition.reason
end

local stalled, ready = conditions.Stalled, conditions.Ready
if stalled ~= nil and stalled.status == "True" then
  return shown("Degraded", message(stalled))
end
if ready == nil then
  return shown("Progressing", "the operator has not reported yet")
end
if status.phase == "Failed" or status.phase == "Rejected" then
  return shown("Degraded", message(ready))
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return shown("Suspended", "spec.suspend is true")
end
-- Reasons of False that leave a sync to go on: the table is created by a later wave, or nothing is to be stopped.
local waits = {TablesMissing = true, Warn = true}
local enforced = conditions.Enforced
if enforced ~= nil and enforced.status ~= "True" and not waits[enforced.reason] then
  if enforced.reason == "Installing" or enforced.status == "Unknown" then
    return shown("Progressing", message(enforced))
  end
  return shown("Degraded", message(enforced))
end
local fresh = conditions.BackupFresh
if fresh ~= nil and fresh.status == "False" then
  return shown("Degraded", message(fresh))
end
if ready.status == "True" then
  return shown("Healthy", message(ready))
end
if ready.status == "False" and obj.kind == "ProtectedDatabase" then
  return shown("Degraded", message(ready))
end
return shown("Progressing", message(ready))
