package tubthumping.crac;

import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Map;
import java.util.Properties;

/**
 * The JDK's own JMX agent, remote (a port of its own) and local (what attaching tools connect to): it
 * is stopped for the image, since its sockets cannot be in two copies, and started again with the
 * same settings. Clients have to connect anew.
 *
 * <p>Not loaded in a JVM in which no such agent was ever started.
 *
 * <p>JVM(since 17): fields and methods of {@code jdk.internal.agent.Agent}, {@code
 * ConnectorBootstrap} and {@code sun.rmi.transport.tcp}; same on 25.
 */
final class ManagementAgent {
    private static final String PREFIX = "com.sun.management.";
    private static final String PORT = PREFIX + "jmxremote.port";
    private static final String LOCAL_ADDRESS = PREFIX + "jmxremote.localConnectorAddress";

    private final Class<?> agent;
    private final Field server;
    private final Field configuration;
    private final Properties ofVm;

    /** How the remote one was started; {@code null} where there was none. */
    private Properties remote;

    /** Whether {@code jcmd} had started it, which shows in its status. */
    private boolean byCommand;

    private boolean local;

    private ManagementAgent(Class<?> agent) throws Exception {
        this.agent = agent;
        server = Internals.field(agent, "jmxServer");
        configuration = Internals.field(agent, "configProps");
        Class<?> support = Class.forName("jdk.internal.vm.VMSupport");
        ofVm = (Properties) Internals.call(Internals.method(support, "getAgentProperties"), null);
    }

    /** Stops what there is; {@code null} where there is nothing. */
    static ManagementAgent stop() throws Exception {
        Class<?> agent = Internals.type("jdk.internal.agent.Agent");
        if (agent == null || !Internals.isInUse(agent)) {
            return null;
        }
        ManagementAgent stopped = new ManagementAgent(agent);
        synchronized (agent) {
            stopped.stopRemote();
            stopped.stopLocal();
        }
        if (stopped.remote == null && !stopped.local) {
            return null;
        }
        closeSockets();
        return stopped;
    }

    private void stopRemote() throws Exception {
        if (server.get(null) == null) {
            return;
        }
        Object given = configuration.get(null);
        byCommand = given != null;
        if (!byCommand) {
            given = Internals.call(Internals.method(agent, "loadManagementProperties"), null);
        }
        Properties settings = (Properties) ((Properties) given).clone();
        Internals.call(Internals.method(agent, "stopRemoteManagementAgent"), null);
        remote = settings;
    }

    private void stopLocal() throws Exception {
        Object address = ofVm.get(LOCAL_ADDRESS);
        Class<?> type = Internals.type("javax.management.remote.JMXConnectorServer");
        if (address == null || type == null) {
            return;
        }
        // Nothing but its listening thread refers to it.
        for (Object found : Agent.instances(new Class<?>[] {type})) {
            Object its = Internals.call(type.getMethod("getAddress"), found);
            if (its != null && its.toString().equals(address)) {
                Internals.call(type.getMethod("stop"), found);
                ofVm.remove(LOCAL_ADDRESS);
                local = true;
            }
        }
    }

    /**
     * Closes what RMI leaves open when nothing is exported any more: the socket of a port that nobody
     * chose, and connections that clients keep for later.
     */
    private static void closeSockets() throws Exception {
        Class<?> transport = Internals.type("sun.rmi.transport.tcp.TCPTransport");
        Class<?> handler = Internals.type("sun.rmi.transport.tcp.TCPTransport$ConnectionHandler");
        Class<?> endpoint = Internals.type("sun.rmi.transport.tcp.TCPEndpoint");
        if (transport == null || !Internals.isInUse(transport)) {
            return;
        }
        Field exported = Internals.field(transport, "exportCount");
        Field listening = Internals.field(transport, "server");
        Field socket = Internals.field(handler, "socket");
        Field owner = Internals.field(handler, "this$0");
        for (Object found : Agent.instances(new Class<?>[] {transport})) {
            synchronized (found) {
                ServerSocket open = (ServerSocket) listening.get(found);
                if (open != null && exported.getInt(found) == 0) {
                    listening.set(found, null);
                    open.close();
                }
            }
        }
        for (Object found : Agent.instances(new Class<?>[] {handler})) {
            Object of = owner.get(found);
            if (of != null && exported.getInt(of) == 0) {
                close((Socket) socket.get(found));
            }
        }
        Internals.call(Internals.method(endpoint, "shedConnectionCaches"), null);
    }

    private static void close(Socket socket) {
        try {
            socket.close();
        } catch (IOException e) {
            // It is closed all the same.
        }
    }

    /**
     * Starts again what was stopped.
     *
     * @param given properties of the restore, which come before those of the start
     */
    void start(Map<String, String> given) throws Exception {
        synchronized (agent) {
            if (remote != null) {
                given.forEach(
                        (name, value) -> {
                            if (name.startsWith(PREFIX)) {
                                remote.setProperty(name, value);
                            }
                        });
                startRemote();
            }
            if (local) {
                Internals.call(Internals.method(agent, "startLocalManagementAgent"), null);
            }
        }
    }

    private void startRemote() throws Exception {
        Class<?> connectors = Class.forName("sun.management.jmxremote.ConnectorBootstrap");
        Method connect =
                Internals.method(
                        connectors, "startRemoteConnectorServer", String.class, Properties.class);
        Method discovery = Internals.method(agent, "startDiscoveryService", Properties.class);
        Object started = Internals.call(connect, null, remote.getProperty(PORT), remote);
        server.set(null, started);
        if (byCommand) {
            configuration.set(null, remote);
        }
        Internals.call(discovery, null, remote);
    }

    /** Whether a remote one was started again, with what the restore said. */
    boolean isRemote() {
        return remote != null;
    }
}
