package weir;

import java.io.IOException;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.metadata.IndexNameExpressionResolver;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.common.io.stream.NamedWriteableRegistry;
import org.elasticsearch.common.settings.ClusterSettings;
import org.elasticsearch.common.settings.IndexScopedSettings;
import org.elasticsearch.common.settings.Setting;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.common.settings.SettingsFilter;
import org.elasticsearch.features.NodeFeature;
import org.elasticsearch.plugins.ActionPlugin;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestController;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.NamedXContentRegistry.Entry;
import org.elasticsearch.xcontent.ParseField;
import org.elasticsearch.xcontent.XContentBuilder;
import org.elasticsearch.xcontent.XContentParser;
import org.elasticsearch.xpack.core.ilm.DeleteAction;
import org.elasticsearch.xpack.core.ilm.ForceMergeAction;
import org.elasticsearch.xpack.core.ilm.LifecycleAction;
import org.elasticsearch.xpack.core.ilm.LifecyclePolicy;
import org.elasticsearch.xpack.core.ilm.LifecycleSettings;
import org.elasticsearch.xpack.core.ilm.LifecycleType;
import org.elasticsearch.xpack.core.ilm.ReadOnlyAction;
import org.elasticsearch.xpack.core.ilm.RolloverAction;
import org.elasticsearch.xpack.core.ilm.SetPriorityAction;
import org.elasticsearch.xpack.core.ilm.TimeseriesLifecycleType;

/**
 * Gives a test's node, whose build is without lifecycle management, the policy API: a policy is parsed and checked by
 * Elasticsearch's own classes and given back as they print it. Nothing is ever executed.
 */
public final class LifecycleParser extends Plugin implements ActionPlugin {
    private final Map<String, LifecyclePolicy> policies = new ConcurrentHashMap<>();

    @Override
    public List<Setting<?>> getSettings() {
        return List.of(LifecycleSettings.LIFECYCLE_NAME_SETTING);
    }

    @Override
    public List<Entry> getNamedXContent() {
        return List.of(
            new Entry(LifecycleType.class, new ParseField(TimeseriesLifecycleType.TYPE), p -> TimeseriesLifecycleType.INSTANCE),
            new Entry(LifecycleAction.class, new ParseField(RolloverAction.NAME), RolloverAction::parse),
            new Entry(LifecycleAction.class, new ParseField(SetPriorityAction.NAME), SetPriorityAction::parse),
            new Entry(LifecycleAction.class, new ParseField(ForceMergeAction.NAME), ForceMergeAction::parse),
            new Entry(LifecycleAction.class, new ParseField(ReadOnlyAction.NAME), ReadOnlyAction::parse),
            new Entry(LifecycleAction.class, new ParseField(DeleteAction.NAME), DeleteAction::parse));
    }

    @Override
    public Collection<RestHandler> getRestHandlers(Settings settings, NamedWriteableRegistry writeables, RestController controller,
            ClusterSettings clusterSettings, IndexScopedSettings indexSettings, SettingsFilter filter,
            IndexNameExpressionResolver resolver, Supplier<DiscoveryNodes> nodes, Predicate<NodeFeature> features) {
        return List.of(new Handler());
    }

    private final class Handler extends BaseRestHandler {
        @Override
        public String getName() {
            return "weir_lifecycle_parser";
        }

        @Override
        public List<Route> routes() {
            return List.of(new Route(RestRequest.Method.GET, "/_ilm/policy/{name}"), new Route(RestRequest.Method.PUT, "/_ilm/policy/{name}"));
        }

        @Override
        protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws IOException {
            String name = request.param("name");
            if (request.method() == RestRequest.Method.PUT) {
                try (XContentParser parser = request.contentParser()) {
                    for (int opening = 0; opening < 3; opening++) { // {"policy":{
                        parser.nextToken();
                    }
                    LifecyclePolicy policy = LifecyclePolicy.parse(parser, name);
                    policy.validate();
                    policies.put(name, policy);
                }
            }
            return channel -> {
                LifecyclePolicy policy = policies.get(name);
                XContentBuilder answer = channel.newBuilder().startObject();
                if (policy != null) {
                    answer.startObject(name).field("version", 1).field("policy", policy).endObject();
                }
                channel.sendResponse(new RestResponse(policy == null ? RestStatus.NOT_FOUND : RestStatus.OK, answer.endObject()));
            };
        }
    }
}
