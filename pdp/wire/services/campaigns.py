"""ReviewService: campaigns, whose reviewers are callers that have authenticated."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pdpapi.v1 import review_service_pb2 as pb

from pdp.errors import CallerNotAllowed, InvalidRequest, Violation
from pdp.limits import MESSAGE_BYTES_MAX
from pdp.reviews import Campaign, CampaignItem, Campaigns, Outcome
from pdp.wire.callers import ANONYMOUS, Caller
from pdp.wire.convert import entities
from pdp.wire.convert.pages import Pages, page_size
from pdp.wire.convert.times import set_time
from pdp.wire.methods import Method, blocking, rpc
from pdp.wire.services.decision import CHECK_BYTES_MAX
from pdp.wire.services.reviews import SERVICE, fill

OUTCOMES: Mapping[Outcome, pb.ReviewOutcome.ValueType] = {
    outcome: pb.ReviewOutcome.Value(f"REVIEW_OUTCOME_{outcome.name}") for outcome in Outcome
}
_OUTCOME_OF = {value: outcome for outcome, value in OUTCOMES.items()}


def campaign_methods(
    campaigns: Campaigns, pages: Pages, pool: ThreadPoolExecutor
) -> Sequence[Method]:
    """The methods of ReviewService for campaigns. They block in threads of `pool`."""

    def create(request: pb.CreateCampaignRequest, caller: Caller) -> pb.CreateCampaignResponse:
        _require_name(caller, "CreateCampaign")
        campaign = campaigns.create(
            request.name,
            caller.name,
            role=request.role,
            organization_id=request.organization_id,
        )
        return pb.CreateCampaignResponse(campaign=_campaign_message(campaign))

    def list_campaigns(request: pb.ListCampaignsRequest, _: Caller) -> pb.ListCampaignsResponse:
        size, after = page_size(request), pages.after(request)
        found = campaigns.list(after[0] if after else "", size)
        response = pb.ListCampaignsResponse()
        messages = [(_campaign_message(campaign), (campaign.id,)) for campaign in found]
        end = (found[-1].id,) if len(found) == size else ()
        next_key = fill(response.campaigns, messages, end)
        if next_key:
            response.next_page_token = pages.token(request, next_key)
        return response

    def list_items(request: pb.ListCampaignItemsRequest, _: Caller) -> pb.ListCampaignItemsResponse:
        size, after = page_size(request), pages.after(request)
        page = campaigns.items(request.campaign_id, int(after[0]) if after else 0, size)
        response = pb.ListCampaignItemsResponse(campaign=_campaign_message(page.campaign))
        messages = [(_item_message(item), (str(item.number),)) for item in page.items]
        end = () if page.after is None else (str(page.after),)
        next_key = fill(response.items, messages, end)
        if next_key:
            response.next_page_token = pages.token(request, next_key)
        return response

    def decide(
        request: pb.DecideCampaignItemRequest, caller: Caller
    ) -> pb.DecideCampaignItemResponse:
        _require_name(caller, "DecideCampaignItem")
        outcome = _OUTCOME_OF.get(request.outcome)
        if outcome is None:
            raise InvalidRequest(Violation("outcome", f"{request.outcome} is not an outcome"))
        if outcome is Outcome.REVOKED and "administer" not in caller.may:
            raise CallerNotAllowed(
                "to revoke a grant, the caller needs the capability 'administer' too",
                method=f"/{SERVICE}/DecideCampaignItem",
                capability="administer",
            )
        item = campaigns.decide(
            request.campaign_id, request.number, outcome, caller.name, request.reason
        )
        return pb.DecideCampaignItemResponse(item=_item_message(item))

    return (
        rpc(SERVICE, "CreateCampaign", "audit", blocking(pool, create), CHECK_BYTES_MAX),
        rpc(SERVICE, "ListCampaigns", "audit", blocking(pool, list_campaigns), CHECK_BYTES_MAX),
        rpc(SERVICE, "ListCampaignItems", "audit", blocking(pool, list_items), CHECK_BYTES_MAX),
        rpc(SERVICE, "DecideCampaignItem", "audit", blocking(pool, decide), MESSAGE_BYTES_MAX),
    )


def _require_name(caller: Caller, method: str) -> None:
    """Raises CallerNotAllowed for a caller that nobody can tell from others: campaigns name their
    reviewers."""
    if caller == ANONYMOUS:
        raise CallerNotAllowed(
            "campaigns name their reviewers: configure callers, and authenticate",
            method=f"/{SERVICE}/{method}",
            capability="audit",
        )


def _campaign_message(campaign: Campaign) -> pb.Campaign:
    message = pb.Campaign(
        id=campaign.id,
        name=campaign.name,
        created_by=campaign.created_by,
        revision=campaign.revision,
        items=campaign.items,
        decided=campaign.decided,
    )
    set_time(message.created_at, campaign.created_at)
    return message


def _item_message(item: CampaignItem) -> pb.CampaignItem:
    message = pb.CampaignItem(number=item.number, grant=entities.grant_message(item.grant))
    message.state = pb.CampaignGrantState.Value(f"CAMPAIGN_GRANT_STATE_{item.state.upper()}")
    verdict = item.verdict
    if verdict is not None:
        message.verdict.outcome = OUTCOMES[verdict.outcome]
        message.verdict.reviewer = verdict.reviewer
        message.verdict.reason = verdict.reason
        message.verdict.revision = verdict.revision
        set_time(message.verdict.decided_at, verdict.decided_at)
    return message
