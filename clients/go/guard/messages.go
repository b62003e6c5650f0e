package guard

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

// Converts between values and messages of the contract. Decides whether an answer is valid.

func checkRequest(token Token, question Question, revision uint64) (*pdpapiv1.CheckRequest, error) {
	item, err := checkItem(question)
	if err != nil {
		return nil, err
	}
	return &pdpapiv1.CheckRequest{
		ActorToken:      token.sendable(),
		Permission:      item.GetPermission(),
		Resource:        item.GetResource(),
		Context:         item.GetContext(),
		AtLeastRevision: revision,
	}, nil
}

func batchRequest(token Token, questions []Question, revision uint64) (*pdpapiv1.BatchCheckRequest, error) {
	if len(questions) < 1 || len(questions) > BatchQuestionsMax {
		return nil, unsendable("questions", fmt.Sprintf(
			"a batch has 1 to %d, not %d (they are not split: two calls may see two revisions)",
			BatchQuestionsMax, len(questions)))
	}
	items := make([]*pdpapiv1.CheckItem, len(questions))
	for i, question := range questions {
		item, err := checkItem(question)
		if err != nil {
			return nil, err
		}
		items[i] = item
	}
	return &pdpapiv1.BatchCheckRequest{
		ActorToken: token.sendable(), Items: items, AtLeastRevision: revision,
	}, nil
}

func permissionsRequest(
	token Token, resources []Resource, asking asking,
) (*pdpapiv1.ListAllowedPermissionsRequest, error) {
	if len(resources) > BatchQuestionsMax {
		return nil, unsendable("resources", fmt.Sprintf("at most %d, not %d", BatchQuestionsMax, len(resources)))
	}
	request := &pdpapiv1.ListAllowedPermissionsRequest{
		ActorToken: token.sendable(), AtLeastRevision: asking.revision,
	}
	for _, named := range resources {
		resource, err := resourceOf(&named)
		if err != nil {
			return nil, err
		}
		request.Resources = append(request.Resources, resource)
	}
	context, err := contextOf(asking.context)
	request.Context = context
	return request, err
}

func checkItem(question Question) (*pdpapiv1.CheckItem, error) {
	if !utf8.ValidString(question.Permission) {
		return nil, unsendable("permission", "not Unicode text")
	}
	resource, err := resourceOf(question.Resource)
	if err != nil {
		return nil, err
	}
	context, err := contextOf(question.Context)
	return &pdpapiv1.CheckItem{Permission: question.Permission, Resource: resource, Context: context}, err
}

// resourceOf returns nil for nil.
func resourceOf(resource *Resource) (*pdpapiv1.Resource, error) {
	if resource == nil {
		return nil, nil
	}
	message := &pdpapiv1.Resource{
		Type: resource.Type, Id: resource.ID, OrganizationId: resource.OrganizationID,
	}
	texts := map[string]string{
		"resource.type": resource.Type, "resource.id": resource.ID,
		"resource.organization_id": resource.OrganizationID,
	}
	if parent := resource.Parent; parent != nil {
		message.Parent = &pdpapiv1.ResourceRef{Type: parent.Type, Id: parent.ID}
		texts["resource.parent.type"], texts["resource.parent.id"] = parent.Type, parent.ID
	}
	for field, text := range texts {
		if !utf8.ValidString(text) {
			return nil, unsendable(field, "not Unicode text")
		}
	}
	if resource.Attributes != nil {
		attributes, err := toStruct(resource.Attributes, "attributes", 1)
		if err != nil {
			return nil, err
		}
		message.Attributes = attributes
	}
	return message, nil
}

// contextOf returns nil for nil.
func contextOf(context map[string]any) (*structpb.Struct, error) {
	if context == nil {
		return nil, nil
	}
	return toStruct(context, "context", 1)
}

// permissionsFromAnswer returns the permissions on these resources in an answer, or Unavailable if it contradicts
// itself.
func permissionsFromAnswer(
	answer *pdpapiv1.ListAllowedPermissionsResponse, resources []Resource,
) (PermissionSet, error) {
	results, refusal := answer.GetResults(), answer.GetRefusal()
	if len(results) != len(resources) {
		return PermissionSet{}, noAnswer(fmt.Sprintf("%d results for %d resources", len(results), len(resources)))
	}
	switch refusal.GetDenialKind() {
	case pdpapiv1.DenialKind_DENIAL_KIND_UNAUTHENTICATED, pdpapiv1.DenialKind_DENIAL_KIND_FORBIDDEN:
	default:
		if refusal != nil {
			return PermissionSet{}, noAnswer(fmt.Sprintf("a refusal of unknown kind %d", refusal.GetDenialKind()))
		}
	}
	actor, err := actorOf(answer.GetActor())
	if err != nil {
		return PermissionSet{}, err
	}
	set := PermissionSet{make(map[held]bool)}
	for i, result := range results {
		resource := &resources[i]
		if len(result.GetAllowed()) > 0 && (actor == nil || refusal != nil) {
			return PermissionSet{}, noAnswer("permissions without an actor")
		}
		for _, permission := range result.GetAllowed() {
			if !strings.HasPrefix(permission, resource.Type+":") || slices.Contains(result.GetDenied(), permission) {
				return PermissionSet{}, noAnswer("a permission of another type, or one that is denied too")
			}
			key := heldOf(permission, resource)
			if _, known := set.holds[key]; !known {
				set.holds[key] = true
			}
		}
		for _, permission := range result.GetDenied() {
			set.holds[heldOf(permission, resource)] = false
		}
	}
	return set, nil
}

// decisionFromCheck returns the decision in an answer, or Unavailable if the answer is not valid.
func decisionFromCheck(answer *pdpapiv1.CheckResponse) (Decision, error) {
	actor, err := actorOf(answer.GetActor())
	if err != nil {
		return Decision{}, err
	}
	return decisionOf(answer, actor)
}

func decisionsFromBatch(answer *pdpapiv1.BatchCheckResponse, count int) ([]Decision, error) {
	if len(answer.GetResults()) != count {
		return nil, noAnswer(fmt.Sprintf("%d results to %d questions", len(answer.GetResults()), count))
	}
	actor, err := actorOf(answer.GetActor())
	if err != nil {
		return nil, err
	}
	decisions := make([]Decision, count)
	for i, result := range answer.GetResults() {
		if decisions[i], err = decisionOf(result, actor); err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

func actorOf(actor *pdpapiv1.Actor) (*Actor, error) {
	if actor == nil {
		return nil, nil
	}
	if actor.GetUserId() == "" {
		return nil, noAnswer("an actor without a user")
	}
	return &Actor{
		UserID:         actor.GetUserId(),
		SessionID:      actor.GetSessionId(),
		OrganizationID: actor.GetOrganizationId(),
		ImpersonatorID: actor.GetImpersonatorId(),
	}, nil
}

func decisionOf(answer *pdpapiv1.CheckResponse, actor *Actor) (Decision, error) {
	decision := Decision{
		Reason:     reasonName(answer.GetReason()),
		Message:    answer.GetMessage(),
		Actor:      actor,
		DecisionID: answer.GetDecisionId(),
		RuleID:     answer.GetRuleId(),
		GrantID:    answer.GetGrantId(),
		Revision:   answer.GetRevision(),
	}
	switch answer.GetDenialKind() {
	case pdpapiv1.DenialKind_DENIAL_KIND_UNAUTHENTICATED:
		decision.DenialKind = KindUnauthenticated
	case pdpapiv1.DenialKind_DENIAL_KIND_FORBIDDEN:
		decision.DenialKind = KindForbidden
	}
	switch answer.GetDecision() {
	case pdpapiv1.Decision_DECISION_ALLOW:
		if answer.GetDenialKind() != pdpapiv1.DenialKind_DENIAL_KIND_UNSPECIFIED {
			return Decision{}, noAnswer("an allow with a kind of denial")
		}
		if actor == nil {
			return Decision{}, noAnswer("an allow without an actor")
		}
		decision.Effect = Allow
	case pdpapiv1.Decision_DECISION_DENY:
		if decision.DenialKind == "" {
			return Decision{}, noAnswer(fmt.Sprintf("a denial of unknown kind %d", answer.GetDenialKind()))
		}
		decision.Effect = Deny
	default:
		return Decision{}, noAnswer(fmt.Sprintf("decision %d", answer.GetDecision()))
	}
	switch answer.GetSource() {
	case pdpapiv1.AnswerSource_ANSWER_SOURCE_UNSPECIFIED:
		decision.Source = Decided
	case pdpapiv1.AnswerSource_ANSWER_SOURCE_CACHED:
		decision.Source = Cached
	case pdpapiv1.AnswerSource_ANSWER_SOURCE_STAYED_OPEN:
		decision.Source = StayedOpen
	default:
		return Decision{}, noAnswer(fmt.Sprintf("an answer of unknown source %d", answer.GetSource()))
	}
	if until := answer.GetReusableUntil(); until != nil {
		if until.CheckValid() != nil {
			return Decision{}, noAnswer("reusable_until is not a time")
		}
		decision.ReusableUntil = until.AsTime()
	}
	if decision.Effect == Deny {
		decision.StepUp = stepUpOf(answer.GetStepUp())
	}
	return decision, nil
}

// stepUpOf is nil also for a factor that only a newer PDP knows: the denial holds anyway.
func stepUpOf(stepUp *pdpapiv1.StepUp) *StepUp {
	factor, ok := map[pdpapiv1.StepUp_Factor]Factor{
		pdpapiv1.StepUp_FACTOR_FIRST:  FirstFactor,
		pdpapiv1.StepUp_FACTOR_SECOND: SecondFactor,
		pdpapiv1.StepUp_FACTOR_BOTH:   MultiFactor,
	}[stepUp.GetFactor()]
	if !ok {
		return nil
	}
	return &StepUp{Factor: factor, MaxAge: stepUp.GetMaxAge().AsDuration()}
}

// reasonName is a number for a reason that only a newer PDP knows; the decision holds anyway.
func reasonName(reason pdpapiv1.DecisionReason) string {
	if name, ok := pdpapiv1.DecisionReason_name[int32(reason)]; ok {
		return strings.TrimPrefix(name, "DECISION_REASON_")
	}
	return strconv.Itoa(int(reason))
}
